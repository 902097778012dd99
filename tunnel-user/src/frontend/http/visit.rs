//! What is known of one client's connection by all that work on it: whose turn it is, and the place that it takes.
//!
//! ```text
//!  waiting for a head: a place in the waiting room, which another source may take
//!  being answered:     a place among the requests under way, which nobody takes
//! ```
//! Who may have no place of the second kind is told so in the first: whoever does not read that keeps nothing from
//! others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{access::Proof, head_clock::HeadClock, refusal::Refusal, upgrade::Upgrading};
use crate::{
    model::PeerAddr,
    observability::metrics::RequestUnderWay,
    strangers::{ClientLimiter, Permit, Turn},
    tunnel::{Client, Places},
};

/// One client's connection.
pub(super) struct Visit {
    pub(super) peer: PeerAddr,
    pub(super) client: Client,
    /// Whose the connection itself proves to be.
    pub(super) proof: Proof,
    limiter: ClientLimiter,
    state: Mutex<State>,
    /// Told when it is somebody else's turn.
    changed: Notify,
}

struct State {
    clock: HeadClock,
    /// While a head is waited for.
    waiting: Option<Permit>,
    /// Whether what is written is an answer; else it is hyper's own word on a head that it cannot read.
    owes_answer: bool,
    /// An answer is not whole: its end must not look like one.
    is_cut: bool,
    upgrading: Option<Box<Upgrading>>,
}

/// How long a connection may be waited for, and whose place it has.
pub(super) struct Wait {
    pub(super) until: Option<Instant>,
    pub(super) eviction: Option<CancellationToken>,
}

/// The requests under way, in number.
#[derive(Clone)]
pub(super) struct Active(Arc<Mutex<Places>>);

/// A request under way: lives until its answer, or what it was upgraded to, has ended.
pub(super) struct Answering {
    visit: Arc<Visit>,
    active: Active,
    counted: Option<RequestUnderWay>,
}

impl Active {
    /// So many.
    pub(super) fn new(most: u32) -> Self {
        Self(Arc::new(Mutex::new(Places::new(most))))
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // Counted whole between any two operations, whatever panicked meanwhile.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visit {
    pub(super) fn new(
        (peer, client): (PeerAddr, Client),
        proof: Proof,
        limiter: ClientLimiter,
    ) -> Self {
        let state = State {
            clock: HeadClock::new(Instant::now()),
            waiting: Some(enter(&limiter, peer)),
            owes_answer: false,
            is_cut: false,
            upgrading: None,
        };
        Self {
            peer,
            client,
            proof,
            limiter,
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    /// A head has come: our turn, if there is a place.
    pub(super) fn begin(self: &Arc<Self>, active: &Active) -> Result<Answering, Refusal> {
        let taken = active.lock().take(self.client);
        taken.map_err(|_| Refusal::TooMany(self.peer.0.ip()))?;
        let mut state = self.state();
        state.clock.asked();
        state.waiting = None;
        state.owes_answer = true;
        drop(state);
        self.changed.notify_one();
        Ok(Answering {
            visit: Arc::clone(self),
            active: active.clone(),
            counted: None,
        })
    }

    /// A head has come for which there is nothing but a last word: the time for the head is time for that, too.
    pub(super) fn turn_away(&self) {
        self.state().owes_answer = true;
    }

    /// Bytes have come.
    pub(super) fn heard(&self) {
        let mut state = self.state();
        let before = state.clock.deadline();
        state.clock.heard(Instant::now());
        let moved = state.clock.deadline() != before;
        drop(state);
        if moved {
            self.changed.notify_one();
        }
    }

    /// All that was written has left.
    pub(super) fn flushed(&self) {
        let mut state = self.state();
        if !matches!(state.clock, HeadClock::Answering) {
            state.owes_answer = false;
        }
    }

    pub(super) fn owes_answer(&self) -> bool {
        self.state().owes_answer
    }

    /// Whether the client has come, or begun to ask, and its head is not whole.
    pub(super) fn owes_head(&self) -> bool {
        let state = self.state();
        matches!(state.clock, HeadClock::Reading { .. }) && !state.owes_answer
    }

    pub(super) fn is_cut(&self) -> bool {
        self.state().is_cut
    }

    pub(super) fn wait(&self) -> Wait {
        let state = self.state();
        Wait {
            until: state.clock.deadline(),
            eviction: state.waiting.as_ref().map(Permit::eviction),
        }
    }

    /// Resolves when the wait may be another one.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The connection is to become something else once its answer has left.
    pub(super) fn upgrade(&self, upgrading: Upgrading) {
        self.state().upgrading = Some(Box::new(upgrading));
    }

    pub(super) fn take_upgrading(&self) -> Option<Box<Upgrading>> {
        self.state().upgrading.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole between any two operations, whatever panicked meanwhile.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answering {
    /// The same, counted as long as it lives.
    pub(super) fn counted(mut self, under_way: RequestUnderWay) -> Self {
        self.counted = Some(under_way);
        self
    }

    /// The answer cannot be ended as it should be.
    pub(super) fn cut(&self) {
        self.visit.state().is_cut = true;
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.active.lock().leave(self.visit.client);
        let waiting = enter(&self.visit.limiter, self.visit.peer);
        let mut state = self.visit.state();
        state.clock.answered(Instant::now());
        state.waiting = Some(waiting);
        drop(state);
        self.visit.changed.notify_one();
    }
}

/// A place of those that are waited for, if need be that of another.
fn enter(limiter: &ClientLimiter, peer: PeerAddr) -> Permit {
    limiter.enter(peer, Turn::Peers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(last: u8, limiter: &ClientLimiter) -> Arc<Visit> {
        let ip = [10, 244, 0, last].into();
        let peer = PeerAddr((ip, 1).into());
        Arc::new(Visit::new(
            (peer, Client::Address(ip)),
            Proof::None,
            limiter.clone(),
        ))
    }

    fn is_evicted(visit: &Visit) -> bool {
        let eviction = visit.wait().eviction;
        eviction.is_some_and(|eviction| eviction.is_cancelled())
    }

    #[test]
    fn who_is_waited_for_makes_room_and_who_is_answered_does_not() {
        let (limiter, active) = (ClientLimiter::new(1, 1), Active::new(8));
        let (first, second) = (visit(1, &limiter), visit(2, &limiter));
        assert!(is_evicted(&first) && !is_evicted(&second));
        let answering = second.begin(&active).unwrap();
        let third = visit(3, &limiter);
        assert!(second.wait().eviction.is_none() && second.wait().until.is_none());
        assert!(!is_evicted(&third));
        // Its answer over, it is waited for again.
        drop(answering);
        assert!(second.wait().until.is_some() && is_evicted(&third));
    }

    #[test]
    fn one_client_has_half_of_the_requests_under_way_and_gets_its_places_back() {
        let (limiter, active) = (ClientLimiter::new(8, 8), Active::new(4));
        let visits = [1, 1, 1, 2].map(|last| visit(last, &limiter));
        let [one, two, three, of_another] = visits.each_ref().map(|visit| visit.begin(&active));
        assert!(one.is_ok() && two.is_ok() && of_another.is_ok());
        assert_eq!(three.err(), Some(Refusal::TooMany([10, 244, 0, 1].into())));
        drop(one);
        assert!(visits[0].begin(&active).is_ok());
    }

    #[test]
    fn what_is_written_before_a_head_or_after_its_answer_is_none() {
        let (limiter, active) = (ClientLimiter::new(8, 8), Active::new(8));
        let visit = visit(1, &limiter);
        assert!(!visit.owes_answer());
        let answering = visit.begin(&active).unwrap();
        visit.flushed();
        assert!(visit.owes_answer(), "a piece of the answer");
        drop(answering);
        assert!(
            visit.owes_answer(),
            "its last piece may still have to leave"
        );
        visit.flushed();
        assert!(!visit.owes_answer());
    }

    #[test]
    fn who_is_turned_away_still_makes_room_and_has_no_more_time() {
        let limiter = ClientLimiter::new(1, 1);
        let first = visit(1, &limiter);
        let until = first.wait().until;
        first.turn_away();
        assert!(first.owes_answer() && first.wait().until == until);
        let _second = visit(2, &limiter);
        assert!(is_evicted(&first));
        first.flushed();
        assert!(!first.owes_answer());
    }
}
