//! Accepting clients, as every frontend does it: from sockets that may be replaced meanwhile, until it is told to stop.

mod acceptor;
mod health;
mod listeners;

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

pub use self::acceptor::Accepting;
pub(super) use self::{
    acceptor::Acceptor,
    listeners::{Listeners, Listens},
};
use crate::bind::BACKLOG;

/// How often the accept loop looks after its sockets and shows that it is alive. The kernel programs let connects pass
/// when it has not for some seconds.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// A queue that stays empty this long is empty.
const QUEUE_PAUSE: Duration = Duration::from_millis(50);

/// How a frontend is told to stop.
#[derive(Clone)]
pub struct Stops {
    /// Accept no more, but what is queued already.
    pub accepting: CancellationToken,
    /// Cancelled before, if another server accepts from the same queue: then it is left alone, or
    /// this one would go on taking what is that one's for as long as clients come.
    pub handed_over: CancellationToken,
    /// Reset the clients that are left.
    pub abort: CancellationToken,
}

/// What a frontend does beside accepting.
pub(super) struct Accepts<Room, Beat, Take> {
    /// Resolves when one more client may be accepted; until then they wait in the kernel's queue.
    pub(super) room: Room,
    /// Called every second, while clients can be accepted.
    pub(super) heartbeat: Beat,
    /// Gets each client.
    pub(super) take: Take,
}

impl<K: Copy + Ord, S: Listens> Acceptor<K, S> {
    /// Accepts until it is told to stop, what was queued by then included.
    pub(super) async fn run<Room, HasRoom, Beat, Take>(
        mut self,
        stops: &Stops,
        accepts: Accepts<Room, Beat, Take>,
    ) where
        Room: Fn() -> HasRoom,
        HasRoom: Future<Output = ()>,
        Beat: Fn(),
        Take: Fn(K, TcpStream, SocketAddr),
    {
        let Accepts {
            room,
            heartbeat,
            take,
        } = accepts;
        let mut beat = interval(HEARTBEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let accepted = async {
                room().await;
                self.accept().await
            };
            tokio::select! {
                (from, stream, peer) = accepted => take(from, stream, peer),
                _ = beat.tick() => if self.look_after() { heartbeat() },
                () = stops.accepting.cancelled() => break,
            }
        }
        for (from, listener) in self.into_listeners() {
            // As many as may have been queued: who connects meanwhile could go on for ever.
            for _ in 0..BACKLOG {
                if stops.handed_over.is_cancelled() {
                    break;
                }
                let Some((stream, peer)) = accept_queued(&listener).await else {
                    break;
                };
                take(from, stream, peer);
            }
        }
    }
}

/// A connection that the kernel has completed already, if there is one. The runtime hears of it
/// within a moment.
async fn accept_queued(listener: &TcpListener) -> Option<(TcpStream, SocketAddr)> {
    timeout(QUEUE_PAUSE, listener.accept()).await.ok()?.ok()
}
