//! The HTTPS frontend's place in the server: its listening sockets, and its clients.

mod listed;

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;
use tokio::sync::watch;

use self::listed::ListedPorts;
use super::{Server, awaited::Guard, sockets::at_bind_address};
use crate::{
    app::socket_takeover::Offer,
    frontend::{
        OwnAddresses,
        http::UsersOptions,
        https::{Https, HttpsListening, HttpsOptions, HttpsSocket, TerminationOptions},
    },
    model::{HttpsTarget, PortSet, is_https_listening_port},
    settings::ServerArgs,
};

/// The sockets of this moment. Clones share them.
#[derive(Clone)]
pub(super) struct HttpsSockets(Arc<Shared>);

struct Shared {
    /// Where all of them listen; every address if it is none.
    ip: Option<IpAddr>,
    /// The server's own ports.
    own: PortSet,
    /// A predecessor's sockets of listed ports, until it is known which ports are listed.
    offered: Mutex<Vec<TcpListener>>,
    /// `sockets --listening--> the frontend`
    listening: watch::Sender<HttpsListening>,
}

impl HttpsSockets {
    /// Takes a predecessor's sockets, and binds the one for clients of kubelets if it has none; `None` where there is
    /// to be no frontend.
    pub(super) fn bind(args: &ServerArgs, offer: &mut Offer) -> anyhow::Result<Option<Self>> {
        let (Some(port), ip) = (args.https_port(), args.bind_address) else {
            return Ok(None);
        };
        let kubelets = at_bind_address(args, offer, port, "--https-port")?;
        let kubelets = (HttpsTarget::Kubelet, HttpsSocket(Arc::new(kubelets)));
        let is_listed = |address: SocketAddr| {
            is_https_listening_port(address.port()) && ip.is_none_or(|ip| ip == address.ip())
        };
        Ok(Some(Self(Arc::new(Shared {
            ip,
            own: args.own_port_set(),
            offered: Mutex::new(offer.take_all(is_listed)),
            listening: watch::Sender::new([kubelets].into()),
        }))))
    }

    /// Another handle of each, for a successor.
    pub(super) fn handles(&self) -> impl Iterator<Item = io::Result<TcpListener>> + use<> {
        let listening = self.0.listening.borrow().clone().into_values();
        listening.map(|HttpsSocket(socket)| socket.try_clone())
    }

    /// The ports at which clients arrive.
    pub(super) fn ports(&self) -> Vec<u16> {
        let addresses = self
            .handles()
            .flatten()
            .flat_map(|socket| socket.local_addr());
        addresses.map(|address| address.port()).collect()
    }

    fn offered(&self) -> MutexGuard<'_, Vec<TcpListener>> {
        // A list is whole between any two operations, whatever panicked meanwhile.
        self.0
            .offered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Accepts clients that name nodes by TLS, if it is to.
    pub(super) fn accept_https_clients(&mut self, gone: Arc<Guard>) -> anyhow::Result<()> {
        let Some(sockets) = self.sockets.https()? else {
            return Ok(());
        };
        let snapshots = self.components.platform.snapshots.clone();
        let mut listed = ListedPorts::new(sockets.clone(), snapshots.clone());
        // Before the predecessor goes: what it has offered is not bound anew.
        listed.open();
        let options = HttpsOptions {
            snapshots,
            carrier: self.carrier(),
            guards_loopback_ports: self.args.guards_loopback_ports(),
            refusals: self.components.metrics.https_refusals.clone(),
            termination: self.termination(),
        };
        let https = Https::new(sockets.0.listening.subscribe(), options);
        let https = https.context("cannot watch a listening socket")?;
        let (stops, end) = (self.stops(), self.shutdown.service.clone());
        self.tasks.spawn(
            "listening on the HTTPS ports of the cluster",
            listed.run(end),
        );
        self.tasks.spawn("accepting HTTPS clients", async move {
            https.run(stops).await;
            drop(gone);
        });
        Ok(())
    }

    /// How TLS ends here, if it is to.
    fn termination(&self) -> Option<TerminationOptions> {
        let termination = self.components.platform.termination.clone()?;
        Some(TerminationOptions {
            tls: termination.tls,
            is_own_name: termination.is_own_name,
            users: UsersOptions {
                own_addresses: OwnAddresses(self.components.own_addresses.clone()),
                reviews: termination.reviews,
                targets: termination.targets,
                own_port: self.args.https_port()?,
                proxy: self.proxy(self.components.metrics.https_requests.clone()),
            },
        })
    }
}
