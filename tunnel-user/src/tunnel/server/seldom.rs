//! Keeps strangers from filling the log: a few messages in a while, with the number of those that
//! were left out.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The time for which messages are counted together.
const PERIOD: Duration = Duration::from_secs(1);
/// How many of them pass: a handful of agents in trouble are all told of.
const BURST: u32 = 10;

/// What one kind of message needs to know.
#[derive(Default)]
pub(super) struct Seldom(Mutex<State>);

#[derive(Default)]
struct State {
    began: Option<Instant>,
    passed: u32,
    left_out: u64,
}

impl Seldom {
    /// Whether to log now; if so, how many messages have been left out since the last one.
    pub(super) fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = |began| now.saturating_duration_since(began) < PERIOD;
        if !state.began.is_some_and(running) {
            state.began = Some(now);
            state.passed = 0;
        }
        if state.passed == BURST {
            state.left_out += 1;
            return None;
        }
        state.passed += 1;
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
        for _ in 0..BURST {
            assert_eq!(seldom.pass(start), Some(0));
        }
        assert_eq!(seldom.pass(start + PERIOD / 2), None);
        assert_eq!(seldom.pass(start + PERIOD / 2), None);
        assert_eq!(seldom.pass(start + PERIOD), Some(2));
        assert_eq!(seldom.pass(start + PERIOD), Some(0));
        assert_eq!(seldom.pass(start + 3 * PERIOD), Some(0));
    }
}
