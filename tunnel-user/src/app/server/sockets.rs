//! The server's listening sockets: taken over from a predecessor where it has them, bound where
//! not.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::AsFd as _,
};

use anyhow::Context as _;

use super::Parts;
use crate::{
    app::{bind, handover::Offer},
    redirect::{
        Listeners,
        addresses::{ServiceAddress, pick_redirect_addresses},
    },
    settings::ServerArgs,
};

/// Every listening socket, kept so that a successor can have it.
pub(super) struct Sockets {
    agents: TcpListener,
    meta: TcpListener,
    clients: Vec<TcpListener>,
    service_addresses: Vec<ServiceAddress>,
}

impl Sockets {
    pub(super) async fn bind(
        args: &ServerArgs,
        offer: &mut Offer,
        parts: &Parts,
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
        let (addresses, service_addresses) = client_addresses(args, parts).await?;
        let clients = addresses.into_iter().map(|ip| {
            let address = SocketAddr::new(ip, args.redirect_port.get());
            taken_or(offer, address, || {
                bind::listen(address, "--redirect-address or --redirect-port")
            })
        });
        let sockets = Self {
            agents,
            meta,
            clients: clients.collect::<anyhow::Result<_>>()?,
            service_addresses,
        };
        sockets.log();
        Ok(sockets)
    }

    pub(super) fn agents(&self) -> io::Result<TcpListener> {
        self.agents.try_clone()
    }

    pub(super) fn meta(&self) -> anyhow::Result<tokio::net::TcpListener> {
        bind::into_tokio(self.meta.try_clone()?)
    }

    pub(super) fn clients(&self) -> anyhow::Result<Vec<tokio::net::TcpListener>> {
        self.clients
            .iter()
            .map(|socket| bind::into_tokio(socket.try_clone()?))
            .collect()
    }

    /// The clients' sockets as the gate knows them.
    pub(super) fn redirect_listeners(&self) -> Listeners<'_> {
        let of_family = |v4: bool| {
            let mut sockets = self.clients.iter();
            let socket = sockets.find(|socket| {
                socket
                    .local_addr()
                    .is_ok_and(|address| address.is_ipv4() == v4)
            });
            socket.map(|socket| socket.as_fd())
        };
        Listeners {
            v4: of_family(true),
            v6: of_family(false),
        }
    }

    /// Where redirected connects arrive.
    pub(super) fn redirect_addresses(&self) -> Vec<SocketAddr> {
        let sockets = self.clients.iter();
        sockets
            .filter_map(|socket| socket.local_addr().ok())
            .collect()
    }

    /// All of them, for a successor.
    pub(super) fn offer(&self) -> anyhow::Result<Offer> {
        let sockets = [&self.agents, &self.meta].into_iter().chain(&self.clients);
        let sockets = sockets.map(TcpListener::try_clone);
        Ok(Offer::new(sockets.collect::<io::Result<_>>()?))
    }

    /// Closes them, and leaves the addresses that servers put on this machine to the one that took
    /// over.
    pub(super) fn leave_service_addresses(self) {
        self.service_addresses
            .into_iter()
            .for_each(ServiceAddress::leave);
    }

    /// Takes the addresses off this machine that servers put there.
    pub(super) async fn remove_service_addresses(self) {
        for address in self.service_addresses {
            if let Err(error) = address.remove().await {
                let error = format!("{:#}", anyhow::anyhow!(error));
                tracing::warn!(error, "cannot remove the redirect's address");
            }
        }
    }

    fn log(&self) {
        let local = |socket: &TcpListener| socket.local_addr().map(|address| address.to_string());
        let clients: Vec<_> = self
            .clients
            .iter()
            .filter_map(|socket| local(socket).ok())
            .collect();
        tracing::info!(
            agents = local(&self.agents).unwrap_or_default(),
            meta = local(&self.meta).unwrap_or_default(),
            ?clients,
            "listening",
        );
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

/// Where redirected connections arrive, and the addresses that go with this server: those that had
/// to be made, and what earlier servers left.
async fn client_addresses(
    args: &ServerArgs,
    parts: &Parts,
) -> anyhow::Result<(Vec<IpAddr>, Vec<ServiceAddress>)> {
    let mut made = ServiceAddress::left_behind().await?;
    if args.redirect_address.is_empty() {
        let picked = pick_redirect_addresses().await?;
        let picked = [picked.v4.map(IpAddr::from), picked.v6.map(IpAddr::from)];
        let addresses: Vec<_> = picked.into_iter().flatten().collect();
        if addresses.iter().all(IpAddr::is_loopback) {
            tracing::warn!(
                "this machine has no address but loopback: pods cannot be redirected; \
                 give it one, or name one with --redirect-address",
            );
        }
        return Ok((addresses, made));
    }
    for address in &args.redirect_address {
        if !address.is_loopback() && !parts.own_addresses.borrow().contains(address) {
            let service = ServiceAddress::add(*address).await;
            made.push(service.with_context(|| {
                format!("cannot give this machine the --redirect-address {address}")
            })?);
        }
    }
    Ok((args.redirect_address.clone(), made))
}
