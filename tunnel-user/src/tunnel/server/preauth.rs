//! The pre-authentication connection limiter: where callers of the agent port are until they have a
//! session.
//!
//! ```text
//!  accept --> connecting --ClientHello--> handshaking --certificate--> authenticated --> session
//!                                                  \--none--> enrolling
//! ```
//! Anyone may call, and whoever has no session yet costs a file descriptor and has proved nothing.
//! So each stage has a bounded number of places, shared fairly (see [`Stage`]) among sources, and
//! among nodes once it is known which one calls. Nothing that a caller of an earlier stage does takes
//! a place of a later one: somebody who only connects does not stand in the way of those that shake
//! hands, and nobody without a certificate in the way of an agent that has shown one.
//!
//! There is no limit for one source alone, for a carrier's NAT may stand before thousands of agents.
//! When many call at once, they wait in the kernel's queue while those before them are served:
//! handshakes cost time, and if all were begun at once none would end.

use crate::{
    model::NodeName,
    strangers::{Holder, Permit, Source, Stage, Turn, share_of_descriptors},
};

/// The places of the last stage, from which the others follow; fewer where the process may have few
/// descriptors. The first stage, the cheapest to fill, holds half as many.
const MOST: usize = 4096;
/// The share of all file descriptors that callers without a session may hold: one in this many.
const SHARE: u64 = 4;

/// Bounds callers without a session.
#[derive(Clone)]
pub(super) struct PreAuthLimiter {
    connecting: Stage,
    handshaking: Stage,
    enrolling: Stage,
    authenticated: Stage,
}

impl Default for PreAuthLimiter {
    fn default() -> Self {
        // For all stages together there are twice as many places.
        Self::new(share_of_descriptors(2 * SHARE).clamp(4, MOST))
    }
}

impl PreAuthLimiter {
    /// Twice so many places, for all stages together.
    fn new(places: usize) -> Self {
        Self {
            connecting: Stage::new(places / 2),
            handshaking: Stage::new(places / 4),
            enrolling: Stage::new(places / 4),
            authenticated: Stage::new(places),
        }
    }

    /// How many callers shake hands at a time.
    pub(super) fn handshakes(&self) -> usize {
        self.handshaking.most()
    }

    /// Resolves when another caller may be accepted.
    pub(super) async fn room(&self) {
        self.connecting.room().await;
    }

    /// The place of a caller that has connected, if need be that of another.
    pub(super) fn connecting(&self, source: Source) -> Permit {
        self.connecting.enter(Holder::Source(source), Turn::Ours)
    }

    /// The place of a caller that has sent a whole `ClientHello`, once it can be answered.
    pub(super) async fn handshaking(&self, source: Source) -> Permit {
        let holder = Holder::Source(source);
        self.handshaking.enter_when_there_is_room(holder).await
    }

    /// The place of a caller without a certificate, if need be that of another.
    pub(super) fn enrolling(&self, source: Source) -> Permit {
        self.enrolling.enter(Holder::Source(source), Turn::Peers)
    }

    /// The place of an agent that has shown the node's certificate, if need be that of another.
    pub(super) fn authenticated(&self, node: NodeName) -> Permit {
        self.authenticated.enter(Holder::Node(node), Turn::Peers)
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, sync::Arc, time::Duration};

    use tokio::{sync::oneshot, time::timeout};

    use super::*;

    fn source(n: u8) -> Source {
        Source::of(std::net::Ipv4Addr::new(192, 0, 2, n).into())
    }

    /// A caller that says nothing.
    fn silent(limiter: &PreAuthLimiter, n: u8) -> Arc<Permit> {
        let permit = Arc::new(limiter.connecting(source(n)));
        let waits = Arc::clone(&permit);
        tokio::spawn(async move { waits.with_peer(std::future::pending::<()>()).await });
        permit
    }

    #[tokio::test]
    async fn strangers_take_one_anothers_places_and_no_agents() {
        let limiter = PreAuthLimiter::new(8);
        let agent = limiter.authenticated("edge-1".parse().unwrap());
        let shaking = limiter.handshaking(source(1)).await;
        let mut silent_ones = Vec::new();
        for _ in 0..100 {
            limiter.room().await;
            silent_ones.push(silent(&limiter, 2));
            tokio::task::yield_now().await;
        }
        let evicted = silent_ones.iter().filter(|one| one.is_evicted());
        assert_eq!(evicted.count(), 96, "four places");
        assert!(!shaking.is_evicted() && !agent.is_evicted());
    }

    #[tokio::test]
    async fn nobody_is_accepted_while_all_places_are_taken_by_what_this_machine_has_to_do() {
        let limiter = PreAuthLimiter::new(8);
        let mut busy: Vec<_> = (0..4).map(|n| limiter.connecting(source(n))).collect();
        let soon = Duration::from_millis(20);
        assert!(timeout(soon, limiter.room()).await.is_err());
        let room = limiter.room();
        drop(busy.pop());
        timeout(Duration::from_secs(10), room).await.unwrap();
    }

    #[tokio::test]
    async fn who_has_answered_is_not_evicted_while_it_waits_for_us() {
        let limiter = PreAuthLimiter::new(4);
        let first = limiter.handshaking(source(1)).await;
        let (answer_tx, answer_rx) = oneshot::channel();
        let mut working = Box::pin(first.with_peer(answer_rx));
        assert!(futures_util::poll!(working.as_mut()).is_pending());
        answer_tx.send(()).unwrap();
        // Not polled yet, but its turn is over.
        let mut second = pin!(limiter.handshaking(source(2)));
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        assert!(!first.is_evicted());
        working.as_mut().await.unwrap();
        drop(working);
        drop(first);
        second.await;
    }

    #[tokio::test]
    async fn who_keeps_us_waiting_makes_room_for_the_next_handshake() {
        let limiter = PreAuthLimiter::new(4);
        let stalled = limiter.handshaking(source(1)).await;
        let mut stalling = pin!(stalled.with_peer(std::future::pending::<()>()));
        assert!(futures_util::poll!(stalling.as_mut()).is_pending());
        let _next = limiter.handshaking(source(2)).await;
        stalled.evicted().await;
    }
}
