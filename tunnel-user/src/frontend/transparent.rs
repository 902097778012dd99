//! The transparent frontend: accepts what the kernel programs redirected, and carries it to the
//! node that the client meant.
//!
//! The one rule: without an original destination a connection is closed. A guess could send a
//! client's bytes to the wrong node, and whoever reaches the listener directly has no business
//! here.

mod accept_health;
mod acceptor;
mod client;
mod listeners;
mod networks;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    acceptor::Accepting,
    listeners::{ClientSocket, Listening},
    networks::ClientNetworks,
};
use self::{acceptor::Acceptor, client::Client, listeners::Listeners};
use crate::{
    model::{Family, OriginalDst, PeerAddr},
    observability::metrics::Connections,
    tunnel::Dialer,
};

/// How often the accept loop shows that it is alive. The kernel programs let connects pass when
/// it has not for some seconds.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A queue that stays empty this long is empty.
const QUEUE_PAUSE: Duration = Duration::from_millis(50);

/// Tells what a client dialled before the redirect.
pub trait OriginalDsts: Send + Sync {
    /// The original destination of an accepted connection; `None` if it was not redirected.
    fn of(&self, accepted: &TcpStream) -> io::Result<Option<OriginalDst>>;
}

/// What the frontend needs.
pub struct TransparentOptions {
    /// Reads original destinations.
    pub original_dsts: Arc<dyn OriginalDsts>,
    /// Who may use the redirect.
    pub clients: ClientNetworks,
    /// Reaches nodes.
    pub dialer: Dialer,
    /// Counts what comes with an original destination.
    pub arrivals: Arrivals,
    /// Counts clients.
    pub metrics: TransparentMetrics,
}

/// Who hears of the accept loop.
pub struct AcceptSigns {
    /// Called every second, while it can accept.
    pub heartbeat: Box<dyn Fn() + Send>,
    /// Hears whether it can.
    pub accepting: Accepting,
}

/// What the frontend counts.
#[derive(Clone)]
pub struct TransparentMetrics {
    /// Clients, by how they ended.
    pub connections: Connections,
    /// Clients that may not use the redirect.
    pub clients_refused: prometheus_client::metrics::counter::Counter,
    /// Clients without an original destination.
    pub without_original_dst: prometheus_client::metrics::counter::Counter,
}

/// How many redirected clients have arrived, by the family of what they dialled. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Arrivals(Arc<[AtomicU64; 2]>);

/// Accepts redirected clients.
pub struct Transparent {
    acceptor: Acceptor,
    options: Arc<TransparentOptions>,
    heartbeat: Box<dyn Fn() + Send>,
}

/// How the frontend is told to stop.
pub struct TransparentStops {
    /// Accept no more, but what is queued already.
    pub accepting: CancellationToken,
    /// Cancelled before, if another server accepts from the same queue: then it is left alone, or
    /// this one would go on taking what is that one's for as long as clients come.
    pub handed_over: CancellationToken,
    /// Reset the clients that are left.
    pub abort: CancellationToken,
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
            acceptor: Acceptor::new(Listeners::new(listening)?, signs.accepting),
            options: Arc::new(options),
            heartbeat: signs.heartbeat,
        })
    }

    /// Accepts until it is told to stop, then waits for the clients it has.
    pub async fn run(self, stops: TransparentStops) {
        let TransparentStops {
            accepting,
            handed_over,
            abort,
        } = stops;
        let Self {
            mut acceptor,
            options,
            heartbeat,
        } = self;
        let clients = TaskTracker::new();
        let take = |(stream, peer)| {
            let client = Client::new(stream, PeerAddr::of(peer), Arc::clone(&options));
            clients.spawn(client.serve(abort.clone()));
        };
        let mut beat = interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                accepted = acceptor.accept() => take(accepted),
                _ = beat.tick() => if acceptor.may_beat() { heartbeat() },
                () = accepting.cancelled() => break,
            }
        }
        let listeners = acceptor.into_listeners();
        for listener in listeners.iter().filter(|_| !handed_over.is_cancelled()) {
            while let Some(accepted) = accept_queued(listener).await {
                take(accepted);
            }
        }
        drop(listeners);
        clients.close();
        clients.wait().await;
    }
}

/// A connection that the kernel has completed already, if there is one. The runtime hears of it
/// within a moment.
async fn accept_queued(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    timeout(QUEUE_PAUSE, listener.accept()).await.ok()?.ok()
}

#[cfg(test)]
mod tests;
