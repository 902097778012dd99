//! The places of clients that have not said yet which node they mean.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    model::PeerAddr,
    strangers::{Holder, Permit, Source, Stage, Turn, share_of_descriptors},
};

/// The most; fewer where the process may have few descriptors.
const MOST: usize = 2048;
/// The share of all file descriptors that they may hold: one in this many.
const SHARE: u64 = 8;

/// Bounds them.
#[derive(Clone)]
pub(super) struct Places {
    stage: Stage,
    /// One for each that is here: also for those that have lost their place and are about to be closed, an eighth as many.
    sockets: Arc<Semaphore>,
}

/// One client's place, free again when this is dropped.
pub(super) struct Place {
    pub(super) permit: Permit,
    _socket: Option<OwnedSemaphorePermit>,
}

impl Default for Places {
    fn default() -> Self {
        Self::new(share_of_descriptors(SHARE).clamp(8, MOST))
    }
}

impl Places {
    fn new(most: usize) -> Self {
        Self {
            stage: Stage::new(most),
            sockets: Arc::new(Semaphore::new(most + most / 8)),
        }
    }

    /// Resolves when another client may be accepted.
    pub(super) async fn room(&self) {
        // Never closed. The one who accepts is the only one who waits.
        drop(self.sockets.acquire().await);
        self.stage.room().await;
    }

    /// The place of a client that has connected, if need be that of another.
    pub(super) fn enter(&self, peer: PeerAddr) -> Place {
        self.place(peer, Turn::Ours)
    }

    /// The place of a client that only has to take its refusal.
    pub(super) fn say_farewell(&self, peer: PeerAddr) -> Place {
        self.place(peer, Turn::Peers)
    }

    fn place(&self, peer: PeerAddr, turn: Turn) -> Place {
        let holder = Holder::Source(Source::of(peer.0.ip()));
        Place {
            permit: self.stage.enter(holder, turn),
            _socket: Arc::clone(&self.sockets).try_acquire_owned().ok(),
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
        let places = Places::new(8);
        let peer = PeerAddr("192.0.2.1:1".parse().unwrap());
        let mut here: Vec<_> = (0..9).map(|_| places.say_farewell(peer)).collect();
        assert!(here[0].permit.is_evicted() && !here[1].permit.is_evicted());
        let soon = Duration::from_millis(20);
        assert!(timeout(soon, places.room()).await.is_err());
        here.remove(0);
        timeout(Duration::from_secs(10), places.room())
            .await
            .unwrap();
    }
}
