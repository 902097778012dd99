//! Places for those who have proved nothing yet: bounded in number, and shared fairly among sources.
//!
//! Anyone may connect, and whoever has said nothing of use yet costs a file descriptor and memory. So
//! each stage that callers go through has so many places. A newcomer to a full stage gets the place of
//! whoever keeps this program waiting with most connections (see [`pool`]): a flood takes its own
//! places, and somebody who says at once what is to be said hardly waits at all.

mod client_limiter;
mod pool;
mod source;
mod within;

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

use self::pool::{FairPool, PlaceId};
pub(crate) use self::{
    client_limiter::{ClientLimiter, Place, Present},
    pool::Turn,
    source::Source,
    within::{Left, within},
};
use crate::model::NodeName;

/// The callers of one stage.
#[derive(Clone)]
pub(crate) struct Stage(Arc<Callers>);

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
pub(crate) enum Holder {
    /// Where it comes from.
    Source(Source),
    /// The node that it has proved to be.
    Node(NodeName),
}

/// One caller's place, free again when this is dropped.
pub(crate) struct Permit {
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

/// One in so many of the file descriptors that this process may have.
pub(crate) fn share_of_descriptors(one_in: u64) -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(descriptors / one_in).unwrap_or(usize::MAX)
}

impl Stage {
    pub(crate) fn new(most: usize) -> Self {
        let places = Places {
            pool: FairPool::new(most),
            evicted: HashMap::new(),
        };
        Self(Arc::new(Callers {
            places: Mutex::new(places),
            room: Notify::new(),
        }))
    }

    /// How many places there are.
    pub(crate) fn most(&self) -> usize {
        self.lock().pool.most()
    }

    /// A place, if need be that of another.
    pub(crate) fn enter(&self, holder: Holder, turn: Turn) -> Permit {
        self.enter_locked(&mut self.lock(), holder, turn)
    }

    /// A place, once there is one or somebody who can be replaced.
    pub(crate) async fn enter_when_there_is_room(&self, holder: Holder) -> Permit {
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

    /// Resolves when somebody can come.
    pub(crate) async fn room(&self) {
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
    /// Cancelled once another caller has got the place.
    pub(crate) fn eviction(&self) -> CancellationToken {
        self.evicted.clone()
    }

    /// Resolves once another caller has got the place.
    pub(crate) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    #[cfg(test)]
    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.is_cancelled()
    }

    /// Does what the caller takes part in: whenever that waits for the caller, the place may be taken.
    pub(crate) async fn with_peer<T>(&self, work: impl Future<Output = T>) -> T {
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
