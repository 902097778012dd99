//! Keeps strangers from filling the log: one message in a while, with the number of those that
//! were left out.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The time between two messages.
const PERIOD: Duration = Duration::from_secs(1);

/// What one kind of message needs to know.
#[derive(Default)]
pub(super) struct Seldom(Mutex<State>);

#[derive(Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// Whether to log now; if so, how many messages have been left out since the last one.
    pub(super) fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let early = |last| now.saturating_duration_since(last) < PERIOD;
        if state.last.is_some_and(early) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_in_quick_succession_are_counted_and_not_logged() {
        let seldom = Seldom::default();
        let start = Instant::now();
        assert_eq!(seldom.pass(start), Some(0));
        assert_eq!(seldom.pass(start + PERIOD / 2), None);
        assert_eq!(seldom.pass(start + PERIOD / 2), None);
        assert_eq!(seldom.pass(start + PERIOD), Some(2));
        assert_eq!(seldom.pass(start + 3 * PERIOD), Some(0));
    }
}
