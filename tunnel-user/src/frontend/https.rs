//! The HTTPS frontend: clients that know a node by its name. It reads the name from the `ClientHello`, which nothing
//! hides, and carries the bytes to the node as they are: the client's own identity and the target's own certificate
//! meet end to end, and nobody gets by this server what it could not get at the target itself.
//!
//! ```text
//!  accept --a place--> hello --name--> node, port --Dialer--> carried
//!                        |---- none, or this server's, where TLS may end here: termination
//!                        \---- none, unknown, no hello: an alert, a counter and a line
//! ```
//! Anyone on the network may connect. Until its hello has come, a client has one of a bounded number of places, for
//! three seconds; what it has said stays in the kernel's buffer.

mod client;
mod client_hello;
mod refusal;
mod route;
mod server_name;
mod termination;

use std::{collections::BTreeMap, io, net::TcpListener, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::termination::{ClientTls, TerminationOptions};
use self::{client::Client, termination::Termination};
use super::{
    Carrier, Stops,
    accept::{Acceptor, Accepts, Listeners, Listens},
    carrier::Accepted,
};
use crate::{
    model::{HttpsTarget, PeerAddr, SnapshotReader},
    observability::metrics::{Frontend, HttpsRefusals},
    strangers::{ClientLimiter, Turn, share_of_descriptors},
};

/// The most clients that have not said yet which node they mean; fewer where the process may have few descriptors.
const MOST: usize = 2048;
/// The share of all file descriptors that they may hold: one in this many.
const SHARE: u64 = 8;

/// The listening sockets of this moment, by what their clients mean.
pub type HttpsListening = BTreeMap<HttpsTarget, HttpsSocket>;

/// Where clients arrive.
#[derive(Clone, Debug)]
pub struct HttpsSocket(pub Arc<TcpListener>);

/// Accepts clients that name nodes by TLS.
pub struct Https {
    acceptor: Acceptor<HttpsTarget, HttpsSocket>,
    options: HttpsOptions,
}

/// What the frontend needs.
pub struct HttpsOptions {
    /// Which nodes there are.
    pub snapshots: SnapshotReader,
    /// Carries clients.
    pub carrier: Carrier,
    /// Whether ports that lead to a node's loopback are for this machine's own processes.
    pub guards_loopback_ports: bool,
    /// Counts those that were not carried.
    pub refusals: HttpsRefusals,
    /// Ends the TLS of clients that name no node, if that is to be.
    pub termination: Option<TerminationOptions>,
}

/// What serves every client.
struct Serving {
    snapshots: SnapshotReader,
    carrier: Carrier,
    guards_loopback_ports: bool,
    refusals: HttpsRefusals,
    /// For clients that have not said yet which node they mean.
    limiter: ClientLimiter,
    termination: Option<Termination>,
}

impl Https {
    /// Serves clients on these sockets, as they change.
    ///
    /// # Errors
    /// When a socket cannot be watched.
    pub fn new(
        listening: watch::Receiver<HttpsListening>,
        options: HttpsOptions,
    ) -> io::Result<Self> {
        // A port that is listed no longer takes nobody: its number may be another's at once.
        let listeners = Listeners::new(listening, Duration::ZERO)?;
        Ok(Self {
            acceptor: Acceptor::new(Frontend::Https, listeners, None),
            options,
        })
    }

    /// Accepts until it is told to stop, then waits for the clients it has.
    pub async fn run(self, stops: Stops) {
        let Self { acceptor, options } = self;
        let serving = Arc::new(Serving::new(options, &stops.abort));
        let (clients, limiter) = (TaskTracker::new(), &serving.limiter);
        let accepts = Accepts {
            room: || limiter.room(),
            heartbeat: || {},
            take: |target, stream, peer| {
                let peer = PeerAddr::of(peer);
                let client = Client {
                    accepted: Accepted::now(stream, peer),
                    target,
                    serving: Arc::clone(&serving),
                };
                let place = limiter.place(peer, Turn::Ours);
                clients.spawn(client.serve(place, stops.clone()));
            },
        };
        tokio::select! {
            () = acceptor.run(&stops, accepts) => {}
            () = serving.sweep() => {}
        }
        clients.close();
        clients.wait().await;
        if let Some(termination) = &serving.termination {
            termination.proxy.end().await;
        }
    }
}

impl Serving {
    fn new(options: HttpsOptions, abort: &CancellationToken) -> Self {
        let HttpsOptions {
            snapshots,
            carrier,
            guards_loopback_ports,
            refusals,
            termination,
        } = options;
        let places = share_of_descriptors(SHARE).clamp(8, MOST);
        Self {
            snapshots,
            carrier,
            guards_loopback_ports,
            refusals,
            // An eighth as many have lost their place and are about to be closed.
            limiter: ClientLimiter::new(places, places + places / 8),
            termination: termination.map(|options| Termination::new(options, abort)),
        }
    }

    /// Lets go of idle connections to nodes, for ever.
    async fn sweep(&self) {
        match &self.termination {
            Some(termination) => termination.proxy.sweep().await,
            None => std::future::pending().await,
        }
    }
}

impl Listens for HttpsSocket {
    fn socket(&self) -> &Arc<TcpListener> {
        &self.0
    }
}

#[cfg(test)]
mod tests;
