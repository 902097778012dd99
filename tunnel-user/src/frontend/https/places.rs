//! The places of clients that have not said yet which node they mean.

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
pub(super) struct Places(Stage);

impl Default for Places {
    fn default() -> Self {
        Self(Stage::new(share_of_descriptors(SHARE).clamp(4, MOST)))
    }
}

impl Places {
    /// Resolves when another client may be accepted.
    pub(super) async fn room(&self) {
        self.0.room().await;
    }

    /// The place of a client that has connected, if need be that of another.
    pub(super) fn enter(&self, peer: PeerAddr) -> Permit {
        self.0.enter(holder(peer), Turn::Ours)
    }

    /// The place of a client that only has to take its refusal.
    pub(super) fn say_farewell(&self, peer: PeerAddr) -> Permit {
        self.0.enter(holder(peer), Turn::Peers)
    }
}

fn holder(peer: PeerAddr) -> Holder {
    Holder::Source(Source::of(peer.0.ip()))
}
