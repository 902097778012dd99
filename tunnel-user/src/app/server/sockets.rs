//! The server's listening sockets: taken over from a predecessor where it has them, bound where
//! not.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use anyhow::Context as _;

use super::{Components, client_sockets::ClientSockets};
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
    agents: TcpListener,
    meta: TcpListener,
}

impl Sockets {
    pub(super) async fn bind(
        args: &ServerArgs,
        offer: &mut Offer,
        components: &Components,
    ) -> anyhow::Result<Self> {
        let agents = match args.bind_address {
            Some(ip) => {
                let address = SocketAddr::new(ip, args.agent_port);
                taken_or(offer, address, || {
                    bind::listen(address, "--bind-address or --agent-port")
                })
            }
            None => match offer.take_everywhere(args.agent_port) {
                Some(socket) => Ok(socket),
                None => bind::listen_everywhere(args.agent_port, "--agent-port"),
            },
        }?;
        let meta = SocketAddr::new(args.meta_address, args.meta_port);
        let meta = taken_or(offer, meta, || {
            bind::listen(meta, "--meta-address or --meta-port")
        })?;
        let surroundings = Arc::clone(&components.surroundings.borrow());
        let clients = ClientSockets::bind(args, offer, &surroundings).await?;
        log(&agents, &meta, &clients);
        Ok(Self {
            ports: Some(Ports { agents, meta }),
            clients,
        })
    }

    pub(super) fn agents(&self) -> anyhow::Result<TcpListener> {
        Ok(self.ports()?.agents.try_clone()?)
    }

    pub(super) fn meta(&self) -> anyhow::Result<tokio::net::TcpListener> {
        bind::into_tokio(self.ports()?.meta.try_clone()?).context("cannot watch a listening socket")
    }

    /// All of them, as they are when a successor comes.
    pub(super) fn offer(&self) -> anyhow::Result<MakeOffer> {
        let Ports { agents, meta } = self.ports()?;
        let (agents, meta) = (agents.try_clone()?, meta.try_clone()?);
        let clients = self.clients.subscribe();
        Ok(Box::new(move || {
            let clients = clients.borrow().clone();
            let clients = clients.values().map(|client| client.socket.try_clone());
            let sockets = [agents.try_clone(), meta.try_clone()].into_iter();
            Ok(Offer::new(
                sockets.chain(clients).collect::<io::Result<_>>()?,
            ))
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

fn log(agents: &TcpListener, meta: &TcpListener, clients: &ClientSockets) {
    let local = |socket: &TcpListener| socket.local_addr().map(|address| address.to_string());
    let clients = clients.addresses();
    tracing::info!(
        agents = local(agents).unwrap_or_default(),
        meta = local(meta).unwrap_or_default(),
        ?clients,
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
