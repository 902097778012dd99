//! How many clients a frontend lets in: a stage, and the sockets of all who are here, with a place or without one.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Holder, Permit, Source, Stage, Turn};
use crate::model::PeerAddr;

/// A stage, and how many may be here in all. Clones share it.
#[derive(Clone)]
pub(crate) struct ClientLimiter {
    stage: Stage,
    /// More than there are places: who has lost its place is still about to be closed.
    sockets: Arc<Semaphore>,
}

/// Counts one that is here, until this is dropped.
pub(crate) struct Present {
    _socket: Option<OwnedSemaphorePermit>,
}

/// A client's permit, and its socket, counted for as long as it has the permit.
pub(crate) struct Place {
    pub(crate) permit: Permit,
    _present: Present,
}

impl ClientLimiter {
    /// So many places, and so many that may be here.
    pub(crate) fn new(places: usize, sockets: usize) -> Self {
        Self {
            stage: Stage::new(places),
            sockets: Arc::new(Semaphore::new(sockets)),
        }
    }

    /// Resolves when another client may be accepted.
    pub(crate) async fn room(&self) {
        // Never closed. The one who accepts is the only one who waits.
        drop(self.sockets.acquire().await);
        self.stage.room().await;
    }

    /// Counts one more, even where there is no room: it is here already.
    pub(crate) fn arrive(&self) -> Present {
        Present {
            _socket: Arc::clone(&self.sockets).try_acquire_owned().ok(),
        }
    }

    /// Counts one more, where there is room.
    pub(crate) fn arrive_if_there_is_room(&self) -> Option<Present> {
        let socket = Arc::clone(&self.sockets).try_acquire_owned().ok()?;
        Some(Present {
            _socket: Some(socket),
        })
    }

    /// A place, if need be that of another.
    pub(crate) fn enter(&self, peer: PeerAddr, turn: Turn) -> Permit {
        let holder = Holder::Source(Source::of(peer.0.ip()));
        self.stage.enter(holder, turn)
    }

    /// A place for one that is counted only while it has it.
    pub(crate) fn place(&self, peer: PeerAddr, turn: Turn) -> Place {
        Place {
            permit: self.enter(peer, turn),
            _present: self.arrive(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn who_has_lost_its_place_counts_until_it_has_gone() {
        let limiter = ClientLimiter::new(8, 9);
        let peer = PeerAddr("192.0.2.1:1".parse().unwrap());
        let mut here: Vec<_> = (0..9).map(|_| limiter.place(peer, Turn::Peers)).collect();
        assert!(here[0].permit.is_evicted() && !here[1].permit.is_evicted());
        let soon = Duration::from_millis(20);
        assert!(timeout(soon, limiter.room()).await.is_err());
        here.remove(0);
        timeout(Duration::from_secs(10), limiter.room())
            .await
            .unwrap();
    }
}
