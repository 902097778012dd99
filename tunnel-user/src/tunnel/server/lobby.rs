//! Where callers of the agent port are until they have a session.
//!
//! Anyone may call, and who has no session yet costs a file descriptor and has proved nothing. So
//! their number is bounded, and a newcomer takes the place of whoever has been here longest: an
//! agent is through within a few round trips, and never waits behind callers that dawdle.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::process::{Resource, getrlimit};
use tokio_util::sync::CancellationToken;

/// The most callers without a session; less where the process may have few descriptors.
const MOST: usize = 2048;
/// The share of all file descriptors that callers without a session may hold: one in this many.
const SHARE: u64 = 4;

/// Those without a session, in the order in which they came.
#[derive(Clone)]
pub(super) struct Lobby {
    waiting: Arc<Mutex<Waiting>>,
    most: usize,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    /// Cancelled for who has to leave.
    places: BTreeMap<u64, CancellationToken>,
}

/// One caller's place, free again when this is dropped.
pub(super) struct LobbyPlace {
    lobby: Lobby,
    number: u64,
    leave: CancellationToken,
}

impl Default for Lobby {
    fn default() -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let share = usize::try_from(descriptors / SHARE).unwrap_or(MOST);
        Self::new(share.clamp(1, MOST))
    }
}

impl Lobby {
    fn new(most: usize) -> Self {
        Self {
            waiting: Arc::default(),
            most,
        }
    }

    /// Takes a place, if need be that of whoever came first.
    pub(super) fn enter(&self) -> LobbyPlace {
        let leave = CancellationToken::new();
        let mut waiting = self.lock();
        if waiting.places.len() >= self.most
            && let Some((_, oldest)) = waiting.places.pop_first()
        {
            oldest.cancel();
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.places.insert(number, leave.clone());
        drop(waiting);
        LobbyPlace {
            lobby: self.clone(),
            number,
            leave,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // The map is whole between any two of its operations, whatever panicked meanwhile.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LobbyPlace {
    /// Resolves once a newcomer has got the place.
    pub(super) async fn taken(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for LobbyPlace {
    fn drop(&mut self) {
        self.lobby.lock().places.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_takes_the_oldest_place_of_a_full_lobby() {
        let lobby = Lobby::new(2);
        let [first, second] = [lobby.enter(), lobby.enter()];
        assert!(!first.leave.is_cancelled());
        let third = lobby.enter();
        assert!(first.leave.is_cancelled());
        assert!(!second.leave.is_cancelled() && !third.leave.is_cancelled());
    }

    #[test]
    fn a_place_that_is_left_is_free() {
        let lobby = Lobby::new(2);
        let first = lobby.enter();
        drop(lobby.enter());
        let _third = lobby.enter();
        assert!(!first.leave.is_cancelled());
        drop(first);
        assert_eq!(lobby.lock().places.len(), 1);
    }
}
