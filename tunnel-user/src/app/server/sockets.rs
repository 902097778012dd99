//! The server's listening sockets: taken over from a predecessor where it has them, bound where
//! not.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use anyhow::Context as _;

use super::{Components, client_sockets::ClientSockets, https::HttpsSockets};
use crate::{
    app::socket_takeover::{MakeOffer, Offer},
    bind,
    settings::ServerArgs,
};

/// Every listening socket, kept so that a successor can have it.
pub(super) struct Sockets {
    /// Until a successor has them.
    ports: Option<Ports>,
    pub(super) clients: ClientSockets,
}

struct Ports {
    /// Of a server that takes agents.
    agents: Option<TcpListener>,
    meta: TcpListener,
    /// For clients that name nodes by TLS, if there may be any.
    https: Option<HttpsSockets>,
}

impl Sockets {
    pub(super) async fn bind(
        args: &ServerArgs,
        offer: &mut Offer,
        components: &Components,
    ) -> anyhow::Result<Self> {
        let (ip, port) = (args.bind_address, args.agent_port);
        let agents = match offer.take_on(ip, port) {
            _ if args.kubernetes.relay_only => None,
            Some(socket) => Some(socket),
            None => Some(bind::listen_on(ip, port, "--bind-address or --agent-port")?),
        };
        let meta = SocketAddr::new(args.meta_address, args.meta_port);
        let meta = taken_or(offer, meta, || {
            bind::listen(meta, "--meta-address or --meta-port")
        })?;
        let surroundings = Arc::clone(&components.surroundings.borrow());
        let clients = ClientSockets::bind(args, offer, &surroundings).await?;
        let https = HttpsSockets::bind(args, offer)?;
        log(agents.as_ref(), &meta, &clients, https.as_ref());
        Ok(Self {
            ports: Some(Ports {
                agents,
                meta,
                https,
            }),
            clients,
        })
    }

    /// Where agents come, if any are taken.
    pub(super) fn agents(&self) -> anyhow::Result<Option<TcpListener>> {
        let agents = self.ports()?.agents.as_ref();
        Ok(agents.map(TcpListener::try_clone).transpose()?)
    }

    pub(super) fn https(&self) -> anyhow::Result<Option<HttpsSockets>> {
        Ok(self.ports()?.https.clone())
    }

    pub(super) fn meta(&self) -> anyhow::Result<tokio::net::TcpListener> {
        bind::into_tokio(self.ports()?.meta.try_clone()?).context("cannot watch a listening socket")
    }

    /// All of them, as they are when a successor comes.
    pub(super) fn offer(&self) -> anyhow::Result<MakeOffer> {
        let Ports {
            agents,
            meta,
            https,
        } = self.ports()?;
        let agents = agents.as_ref().map(TcpListener::try_clone).transpose()?;
        let meta = meta.try_clone()?;
        let (clients, https) = (self.clients.subscribe(), https.clone());
        Ok(Box::new(move || {
            let clients = clients.borrow().clone();
            let clients = clients.values().map(|client| client.socket.try_clone());
            let sockets = agents.iter().chain([&meta]).map(TcpListener::try_clone);
            // A version before this one takes the first eight.
            let https = https.iter().flat_map(HttpsSockets::handles);
            let sockets = sockets.chain(clients).chain(https);
            Ok(Offer::new(sockets.collect::<io::Result<_>>()?))
        }))
    }

    /// Closes them, and leaves the addresses that servers put on this machine to the one that took over.
    pub(super) fn leave(&mut self) {
        self.clients.leave_service_addresses();
        self.ports = None;
    }

    /// Takes the addresses off this machine that servers put there.
    pub(super) async fn remove_service_addresses(&self) {
        self.clients.remove_service_addresses().await;
    }

    fn ports(&self) -> anyhow::Result<&Ports> {
        let ports = self.ports.as_ref();
        ports.context("a successor has the listening sockets")
    }
}

fn log(
    agents: Option<&TcpListener>,
    meta: &TcpListener,
    clients: &ClientSockets,
    https: Option<&HttpsSockets>,
) {
    let local = |socket: &TcpListener| socket.local_addr().map(|address| address.to_string());
    let clients = clients.addresses();
    let https = https.map(HttpsSockets::ports);
    tracing::info!(
        agents = agents.and_then(|agents| local(agents).ok()),
        meta = local(meta).unwrap_or_default(),
        ?clients,
        https = https.map(tracing::field::debug),
        "listening",
    );
}

fn taken_or(
    offer: &mut Offer,
    address: SocketAddr,
    bind: impl FnOnce() -> anyhow::Result<TcpListener>,
) -> anyhow::Result<TcpListener> {
    match offer.take(address) {
        Some(socket) => Ok(socket),
        None => bind(),
    }
}
