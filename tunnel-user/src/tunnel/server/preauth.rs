//! The pre-authentication connection limiter: where callers of the agent port are until they have a
//! session.
//!
//! ```text
//!  accept --> connecting --ClientHello--> handshaking --certificate--> authenticated --> session
//!                                                  \--none--> enrolling
//! ```
//! Anyone may call, and whoever has no session yet costs a file descriptor and has proved nothing.
//! So each stage has a bounded number of places, shared fairly (see [`pool`]) among sources, and
//! among nodes once it is known which one calls. Nothing that a caller of an earlier stage does takes
//! a place of a later one: somebody who only connects does not stand in the way of those that shake
//! hands, and nobody without a certificate in the way of an agent that has shown one.
//!
//! There is no limit for one source alone, for a carrier's NAT may stand before thousands of agents.
//! When many call at once, they wait in the kernel's queue while those before them are served:
//! handshakes cost time, and if all were begun at once none would end.

mod pool;
mod source;

use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Wake, Waker},
};

use rustix::process::{Resource, getrlimit};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::pool::{FairPool, PlaceId, Turn};
pub(super) use self::source::Source;
use crate::model::NodeName;

/// The places of the last stage, from which the others follow; fewer where the process may have few
/// descriptors. The first stage, the cheapest to fill, holds half as many.
const MOST: u64 = 4096;
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

/// The callers of one stage.
#[derive(Clone)]
struct Stage(Arc<Callers>);

struct Callers {
    places: Mutex<Places>,
    /// Told when there may be room.
    room: Notify,
}

struct Places {
    pool: FairPool<Holder>,
    /// Cancelled for who has to leave.
    evicted: HashMap<PlaceId, CancellationToken>,
}

/// Whom a place is counted for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Holder {
    Source(Source),
    Node(NodeName),
}

/// One caller's place, free again when this is dropped.
pub(super) struct Permit {
    stage: Stage,
    id: PlaceId,
    evicted: CancellationToken,
}

/// Wakes the task of a caller that has acted.
struct Acted {
    stage: Stage,
    id: PlaceId,
    task: Waker,
}

impl Default for PreAuthLimiter {
    fn default() -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let places = (descriptors / SHARE / 2).clamp(4, MOST);
        Self::new(usize::try_from(places).unwrap_or(usize::MAX))
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
        self.handshaking.lock().pool.most()
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

impl Stage {
    fn new(most: usize) -> Self {
        let places = Places {
            pool: FairPool::new(most),
            evicted: HashMap::new(),
        };
        Self(Arc::new(Callers {
            places: Mutex::new(places),
            room: Notify::new(),
        }))
    }

    fn enter(&self, holder: Holder, turn: Turn) -> Permit {
        self.enter_locked(&mut self.lock(), holder, turn)
    }

    async fn enter_when_there_is_room(&self, holder: Holder) -> Permit {
        loop {
            let mut room = pin!(self.0.room.notified());
            // From here on no news is missed.
            room.as_mut().enable();
            {
                let mut places = self.lock();
                if places.pool.has_room() {
                    return self.enter_locked(&mut places, holder, Turn::Ours);
                }
            }
            room.await;
        }
    }

    async fn room(&self) {
        loop {
            let mut room = pin!(self.0.room.notified());
            room.as_mut().enable();
            if self.lock().pool.has_room() {
                return;
            }
            room.await;
        }
    }

    fn enter_locked(&self, places: &mut Places, holder: Holder, turn: Turn) -> Permit {
        let (id, taken) = places.pool.enter(holder, turn, rand::random());
        if let Some(evicted) = taken.and_then(|taken| places.evicted.remove(&taken)) {
            evicted.cancel();
        }
        let evicted = CancellationToken::new();
        places.evicted.insert(id, evicted.clone());
        Permit {
            stage: self.clone(),
            id,
            evicted,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // The pool is whole between any two of its operations, whatever panicked meanwhile.
        let places = self.0.places.lock();
        places.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Resolves once another caller has got the place.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// Does what the caller takes part in: whenever that waits for the caller, the place may be taken.
    pub(super) async fn with_peer<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            let acted = Acted {
                stage: self.stage.clone(),
                id: self.id,
                task: cx.waker().clone(),
            };
            self.stage.lock().pool.begin(self.id);
            let waker = Waker::from(Arc::new(acted));
            let polled = work.as_mut().poll(&mut Context::from_waker(&waker));
            if polled.is_pending() && self.stage.lock().pool.end(self.id, rand::random()) {
                self.stage.0.room.notify_one();
            }
            polled
        })
        .await
    }
}

impl Wake for Acted {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    /// What the caller sent may have to wait for its turn on a busy machine: from now on the caller
    /// has done its part.
    fn wake_by_ref(self: &Arc<Self>) {
        self.stage.lock().pool.acted(self.id);
        self.task.wake_by_ref();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut places = self.stage.lock();
        places.evicted.remove(&self.id);
        let has_left = places.pool.leave(self.id);
        drop(places);
        if has_left {
            self.stage.0.room.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        let evicted = silent_ones.iter().filter(|one| one.evicted.is_cancelled());
        assert_eq!(evicted.count(), 96, "four places");
        assert!(!shaking.evicted.is_cancelled() && !agent.evicted.is_cancelled());
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
        assert!(!first.evicted.is_cancelled());
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
