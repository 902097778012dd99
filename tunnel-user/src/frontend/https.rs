//! The HTTPS frontend: clients that know a node by its name. It reads the name from the `ClientHello`, which nothing
//! hides, and carries the bytes to the node as they are: the client's own identity and the target's own certificate
//! meet end to end, and nobody gets by this server what it could not get at the target itself.
//!
//! ```text
//!  accept --a place--> hello --name--> node, port --Dialer--> carried
//!                        \---- none, unknown, no hello: an alert, a counter and a line
//! ```
//! Anyone on the network may connect. Until its hello has come, a client has one of a bounded number of places, for
//! three seconds; what it has said stays in the kernel's buffer.

mod client;
mod client_hello;
mod refusal;
mod route;
mod server_name;

use std::{collections::BTreeMap, io, net::TcpListener, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use self::client::Client;
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
    serving: Arc<Serving>,
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
}

/// What serves every client.
struct Serving {
    options: HttpsOptions,
    /// For clients that have not said yet which node they mean.
    limiter: ClientLimiter,
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
        let places = share_of_descriptors(SHARE).clamp(8, MOST);
        Ok(Self {
            acceptor: Acceptor::new(Frontend::Https, listeners, None),
            serving: Arc::new(Serving {
                options,
                // An eighth as many have lost their place and are about to be closed.
                limiter: ClientLimiter::new(places, places + places / 8),
            }),
        })
    }

    /// Accepts until it is told to stop, then waits for the clients it has.
    pub async fn run(self, stops: Stops) {
        let Self { acceptor, serving } = self;
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
                clients.spawn(client.serve(place, stops.abort.clone()));
            },
        };
        acceptor.run(&stops, accepts).await;
        clients.close();
        clients.wait().await;
    }
}

impl Listens for HttpsSocket {
    fn socket(&self) -> &Arc<TcpListener> {
        &self.0
    }
}

#[cfg(test)]
mod tests;
