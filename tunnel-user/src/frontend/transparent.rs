//! The transparent frontend: accepts what the kernel programs redirected, and carries it to the
//! node that the client meant.
//!
//! The one rule: without an original destination a connection is closed. A guess could send a
//! client's bytes to the wrong node, and whoever reaches the listener directly has no business
//! here.

mod client;

use std::{
    collections::BTreeMap,
    io,
    net::{self, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tokio::{net::TcpStream, sync::watch};
use tokio_util::task::TaskTracker;

use self::client::Client;
use super::{
    Accepting, Carrier, Stops,
    accept::{Acceptor, Accepts, Listeners, Listens},
    carrier::Accepted,
};
use crate::{
    model::{Family, OriginalDst, PeerAddr},
    observability::metrics::Frontend,
};

/// How long a socket that was replaced is still accepted from: clients were on their way to it.
const ON_THE_WAY: Duration = Duration::from_secs(10);

/// The listening sockets of this moment: one of each family.
pub type Listening = BTreeMap<Family, ClientSocket>;

/// Where clients of one family arrive.
#[derive(Clone, Debug)]
pub struct ClientSocket {
    /// The socket's address.
    pub address: SocketAddr,
    /// What speaks for the address, for a person.
    pub reason: String,
    /// The socket.
    pub socket: Arc<net::TcpListener>,
}

/// Tells what a client dialled before the redirect.
pub trait OriginalDsts: Send + Sync {
    /// The original destination of an accepted connection; `None` if it was not redirected.
    fn of(&self, accepted: &TcpStream) -> io::Result<Option<OriginalDst>>;
}

/// What the frontend needs.
pub struct TransparentOptions {
    /// Reads original destinations.
    pub original_dsts: Arc<dyn OriginalDsts>,
    /// Carries those who may use the redirect.
    pub carrier: Carrier,
    /// Counts what comes with an original destination.
    pub arrivals: Arrivals,
    /// Counts clients without an original destination.
    pub without_original_dst: Counter,
}

/// Who hears of the accept loop.
pub struct AcceptSigns {
    /// Called every second, while it can accept.
    pub heartbeat: Box<dyn Fn() + Send>,
    /// Hears whether it can.
    pub accepting: Accepting,
}

/// How many redirected clients have arrived, by the family of what they dialled. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Arrivals(Arc<[AtomicU64; 2]>);

/// Accepts redirected clients.
pub struct Transparent {
    acceptor: Acceptor<Family, ClientSocket>,
    options: Arc<TransparentOptions>,
    heartbeat: Box<dyn Fn() + Send>,
}

impl Listens for ClientSocket {
    fn socket(&self) -> &Arc<net::TcpListener> {
        &self.socket
    }
}

impl Arrivals {
    /// How many of this family.
    pub fn of(&self, family: Family) -> u64 {
        self.counter(family).load(Ordering::Relaxed)
    }

    fn count(&self, family: Family) {
        self.counter(family).fetch_add(1, Ordering::Relaxed);
    }

    fn counter(&self, family: Family) -> &AtomicU64 {
        let [v4, v6] = &*self.0;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }
}

impl Transparent {
    /// Serves clients on these sockets, and on those that take their place.
    ///
    /// # Errors
    /// When a socket cannot be watched.
    pub fn new(
        listening: watch::Receiver<Listening>,
        signs: AcceptSigns,
        options: TransparentOptions,
    ) -> io::Result<Self> {
        Ok(Self {
            acceptor: Acceptor::new(
                Frontend::Transparent,
                Listeners::new(listening, ON_THE_WAY)?,
                Some(signs.accepting),
            ),
            options: Arc::new(options),
            heartbeat: signs.heartbeat,
        })
    }

    /// Accepts until it is told to stop, then waits for the clients it has.
    pub async fn run(self, stops: Stops) {
        let Self {
            acceptor,
            options,
            heartbeat,
        } = self;
        let clients = TaskTracker::new();
        let accepts = Accepts {
            room: || std::future::ready(()),
            heartbeat,
            take: |_, stream, peer| {
                let accepted = Accepted::now(stream, PeerAddr::of(peer));
                let client = Client::new(accepted, Arc::clone(&options));
                clients.spawn(client.serve(stops.abort.clone()));
            },
        };
        acceptor.run(&stops, accepts).await;
        clients.close();
        clients.wait().await;
    }
}

#[cfg(test)]
mod tests;
