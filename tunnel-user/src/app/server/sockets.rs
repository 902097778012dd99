//! The server's listening sockets: taken over from a predecessor where it has them, bound where
//! not.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
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
    /// For requests that name nodes, if there may be any.
    http: Option<TcpListener>,
    /// For clients that name nodes by TLS, likewise.
    https: Option<HttpsSockets>,
}

impl Sockets {
    pub(super) async fn bind(
        args: &ServerArgs,
        offer: &mut Offer,
        components: &Components,
    ) -> anyhow::Result<Self> {
        let agents = (!args.kubernetes.relay_only)
            .then(|| at_bind_address(args, offer, args.agent_port, "--agent-port"))
            .transpose()?;
        let http = args.http_port();
        let http = http.map(|port| {
            let ip = args.http_address.or(args.bind_address);
            taken_on(offer, ip, port, "--http-address or --http-port")
        });
        let http = http.transpose()?;
        let meta = SocketAddr::new(args.meta_address, args.meta_port);
        let meta = taken_or(offer, meta, || {
            bind::listen(meta, "--meta-address or --meta-port")
        })?;
        let surroundings = Arc::clone(&components.surroundings.borrow());
        let clients = ClientSockets::bind(args, offer, &surroundings).await?;
        let https = HttpsSockets::bind(args, offer)?;
        let ports = Ports {
            agents,
            meta,
            http,
            https,
        };
        log(&ports, &clients);
        Ok(Self {
            ports: Some(ports),
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

    /// Where HTTP requests arrive, if they do.
    pub(super) fn http(&self) -> anyhow::Result<Option<TcpListener>> {
        let http = self.ports()?.http.as_ref();
        Ok(http.map(TcpListener::try_clone).transpose()?)
    }

    pub(super) fn meta(&self) -> anyhow::Result<tokio::net::TcpListener> {
        bind::into_tokio(self.ports()?.meta.try_clone()?).context("cannot watch a listening socket")
    }

    /// All of them, as they are when a successor comes.
    pub(super) fn offer(&self) -> anyhow::Result<MakeOffer> {
        let Ports {
            agents,
            meta,
            http,
            https,
        } = self.ports()?;
        let copy = |socket: &Option<TcpListener>| {
            let socket = socket.as_ref();
            socket.map(TcpListener::try_clone).transpose()
        };
        let (agents, meta, http) = (copy(agents)?, meta.try_clone()?, copy(http)?);
        let (clients, https) = (self.clients.subscribe(), https.clone());
        Ok(Box::new(move || {
            let clients = clients.borrow().clone();
            let clients = clients.values().map(|client| client.socket.try_clone());
            let sockets = agents.iter().chain([&meta]).map(TcpListener::try_clone);
            // A version before this one takes the first eight.
            let https = https.iter().flat_map(HttpsSockets::handles);
            let http = http.iter().map(TcpListener::try_clone);
            let sockets = sockets.chain(clients).chain(http).chain(https);
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

fn log(ports: &Ports, clients: &ClientSockets) {
    let local = |socket: &TcpListener| socket.local_addr().ok().map(|address| address.to_string());
    let Ports {
        agents,
        meta,
        http,
        https,
    } = ports;
    let https = https.as_ref().map(HttpsSockets::ports);
    tracing::info!(
        agents = agents.as_ref().and_then(local),
        meta = local(meta),
        clients = ?clients.addresses(),
        http = http.as_ref().and_then(local),
        https = https.map(tracing::field::debug),
        "listening",
    );
}

/// A port where others come to this machine.
pub(super) fn at_bind_address(
    args: &ServerArgs,
    offer: &mut Offer,
    port: u16,
    flag: &str,
) -> anyhow::Result<TcpListener> {
    taken_on(
        offer,
        args.bind_address,
        port,
        &format!("--bind-address or {flag}"),
    )
}

fn taken_on(
    offer: &mut Offer,
    ip: Option<IpAddr>,
    port: u16,
    setting: &str,
) -> anyhow::Result<TcpListener> {
    match offer.take_on(ip, port) {
        Some(socket) => Ok(socket),
        None => bind::listen_on(ip, port, setting),
    }
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
