//! The listening sockets that redirected clients arrive at: one of each family, on the named addresses or on those by
//! which others know this machine, which may change.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::AsFd as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use anyhow::Context as _;
use tokio::sync::watch;

use crate::{
    app::socket_takeover::Offer,
    bind,
    frontend::transparent::{ClientSocket, Listening},
    model::Family,
    observability::chain,
    redirect::{
        Listeners,
        addresses::{ServiceAddress, Surroundings},
    },
    settings::ServerArgs,
};

/// What to change where a socket cannot be bound.
const SETTING: &str = "--redirect-address or --redirect-port";
/// Why an address was taken that somebody has named.
const NAMED: &str = "named with --redirect-address";

/// The sockets of this moment. Clones share them.
#[derive(Clone)]
pub(super) struct ClientSockets(Arc<Shared>);

struct Shared {
    port: u16,
    named: Vec<IpAddr>,
    listening: watch::Sender<Listening>,
    /// All that have been bound: who accepts clients keeps those that were replaced for a while, and an address may
    /// come back.
    bound: Mutex<Vec<Weak<TcpListener>>>,
    service_addresses: Mutex<Vec<ServiceAddress>>,
}

impl ClientSockets {
    /// Takes a predecessor's sockets where it has the right ones, and binds the others.
    pub(super) async fn bind(
        args: &ServerArgs,
        offer: &mut Offer,
        surroundings: &Surroundings,
    ) -> anyhow::Result<Self> {
        let sockets = Self(Arc::new(Shared {
            port: args.redirect_port.get(),
            named: args.redirect_address.clone(),
            listening: watch::Sender::default(),
            bound: Mutex::default(),
            service_addresses: Mutex::new(ServiceAddress::left_behind().await?),
        }));
        sockets.add_named(surroundings).await?;
        sockets.listen(surroundings, |address| offer.take(address))?;
        Ok(sockets)
    }

    /// Follows which sockets there are.
    pub(super) fn subscribe(&self) -> watch::Receiver<Listening> {
        self.0.listening.subscribe()
    }

    /// What speaks for the address of each.
    pub(super) fn reasons(&self) -> BTreeMap<SocketAddr, String> {
        let listening = self.0.listening.borrow();
        let reasons = listening.values();
        reasons
            .map(|socket| (socket.address, socket.reason.clone()))
            .collect()
    }

    /// Where redirected connects arrive.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let listening = self.0.listening.borrow();
        listening.values().map(|socket| socket.address).collect()
    }

    /// Binds what this machine's addresses have made necessary.
    ///
    /// # Errors
    /// When an address cannot be had; the sockets stay what they were.
    pub(super) async fn follow(&self, surroundings: &Surroundings) -> anyhow::Result<()> {
        self.add_named_again(surroundings).await?;
        self.listen(surroundings, |_| None)
    }

    /// Calls the function with the sockets as the gate knows them.
    pub(super) fn with_listeners<T>(&self, with: impl FnOnce(&Listeners<'_>) -> T) -> T {
        let listening = self.0.listening.borrow();
        let of = |family| listening.get(&family).map(|socket| socket.socket.as_fd());
        with(&Listeners {
            v4: of(Family::V4),
            v6: of(Family::V6),
        })
    }

    /// Closes them, and leaves the addresses that servers put on this machine to the one that took over.
    pub(super) fn leave_service_addresses(&self) {
        self.0.listening.send_replace(Listening::new());
        let left = std::mem::take(&mut *lock(&self.0.service_addresses));
        left.into_iter().for_each(ServiceAddress::leave);
    }

    /// Takes the addresses off this machine that servers put there.
    pub(super) async fn remove_service_addresses(&self) {
        let left = std::mem::take(&mut *lock(&self.0.service_addresses));
        for address in left {
            if let Err(error) = address.remove().await {
                let error = chain(&error);
                tracing::warn!(error, "cannot remove the redirect's address");
            }
        }
    }

    /// Binds what is wanted, not open and not `offered`, and publishes it.
    fn listen(
        &self,
        surroundings: &Surroundings,
        mut offered: impl FnMut(SocketAddr) -> Option<TcpListener>,
    ) -> anyhow::Result<()> {
        let mut listening = Listening::new();
        for (family, (ip, reason)) in self.wanted(surroundings) {
            let address = SocketAddr::new(ip, self.0.port);
            let socket = match self.open(address) {
                Some(socket) => socket,
                None => self.keep(match offered(address) {
                    Some(socket) => socket,
                    None => bind::listen(address, SETTING)?,
                }),
            };
            let client = ClientSocket {
                address,
                reason,
                socket,
            };
            listening.insert(family, client);
        }
        self.0.listening.send_replace(listening);
        Ok(())
    }

    /// The socket on this address, if it was bound before and somebody still accepts from it.
    fn open(&self, address: SocketAddr) -> Option<Arc<TcpListener>> {
        let mut bound = lock(&self.0.bound);
        bound.retain(|socket| socket.strong_count() > 0);
        let mut open = bound.iter().filter_map(Weak::upgrade);
        open.find(|socket| socket.local_addr().is_ok_and(|local| local == address))
    }

    fn keep(&self, socket: TcpListener) -> Arc<TcpListener> {
        let socket = Arc::new(socket);
        lock(&self.0.bound).push(Arc::downgrade(&socket));
        socket
    }

    /// Puts those of the named addresses on this machine that it does not have.
    async fn add_named(&self, surroundings: &Surroundings) -> anyhow::Result<()> {
        for address in self.missing(surroundings) {
            let added = ServiceAddress::add(address).await;
            let added = added.with_context(|| {
                format!("cannot give this machine the --redirect-address {address}")
            })?;
            lock(&self.0.service_addresses).push(added);
        }
        Ok(())
    }

    /// Puts those back that we have put there. Another may be on another machine by now.
    async fn add_named_again(&self, surroundings: &Surroundings) -> anyhow::Result<()> {
        for address in self.missing(surroundings) {
            let known = |known: &ServiceAddress| known.address() == address && known.is_ours();
            let mut all = lock(&self.0.service_addresses);
            let index = all.iter().position(known).with_context(|| {
                format!(
                    "this machine has lost its --redirect-address {address}, and redirected connects go \
                     there: give it back, or start the server with another"
                )
            })?;
            // It is not to take the new one away when it is dropped.
            all.swap_remove(index).leave();
        }
        self.add_named(surroundings).await
    }

    fn missing(&self, surroundings: &Surroundings) -> Vec<IpAddr> {
        let is_missing = |ip: &&IpAddr| !ip.is_loopback() && !surroundings.addresses.contains(*ip);
        self.0.named.iter().filter(is_missing).copied().collect()
    }

    /// Which address each family is to have, and why.
    fn wanted(&self, surroundings: &Surroundings) -> BTreeMap<Family, (IpAddr, String)> {
        if !self.0.named.is_empty() {
            let named = self.0.named.iter();
            return named
                .map(|ip| (Family::of(*ip), (*ip, NAMED.to_owned())))
                .collect();
        }
        let listening = self.0.listening.borrow();
        let choose = |family| {
            let in_use = listening.get(&family).map(|socket| socket.address.ip());
            let chosen = surroundings.candidates.choose(family, in_use)?;
            Some((family, (chosen.ip, chosen.to_string())))
        };
        Family::ALL.into_iter().filter_map(choose).collect()
    }
}

/// Each change is one push or one removal, so a panic elsewhere cannot leave a half-made one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
