//! How long a connection may keep us waiting for the head of a request: a plain state machine.

use std::time::Duration;

use tokio::time::Instant;

/// From the first byte of a head to its last; a connection that has just come is as one that has begun.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// From an answer to the next request: longer than what monitoring pauses between two scrapes.
const IDLE_TIME: Duration = Duration::from_secs(75);

/// What one connection is waited for.
#[derive(Debug)]
pub(super) enum HeadClock {
    /// Nothing has come since the last answer.
    Idle { since: Instant },
    /// A head has begun.
    Reading { since: Instant },
    /// It is our turn.
    Answering,
}

impl HeadClock {
    pub(super) fn new(now: Instant) -> Self {
        Self::Reading { since: now }
    }

    /// Bytes have come.
    pub(super) fn heard(&mut self, now: Instant) {
        if let Self::Idle { .. } = self {
            *self = Self::Reading { since: now };
        }
    }

    /// A head is whole.
    pub(super) fn asked(&mut self) {
        *self = Self::Answering;
    }

    /// The answer is.
    pub(super) fn answered(&mut self, now: Instant) {
        *self = Self::Idle { since: now };
    }

    /// When the wait is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Idle { since } => Some(*since + IDLE_TIME),
            Self::Reading { since } => Some(*since + HEAD_TIME),
            Self::Answering => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_has_begun_must_come_soon_and_the_next_one_may_take_its_time() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut clock = HeadClock::new(start);
        clock.heard(after(9));
        assert_eq!(clock.deadline(), Some(after(10)), "no byte buys time");
        clock.asked();
        clock.heard(after(20));
        assert_eq!(clock.deadline(), None, "a body, or the next request");
        clock.answered(after(100));
        assert_eq!(clock.deadline(), Some(after(175)));
        clock.heard(after(170));
        assert_eq!(clock.deadline(), Some(after(180)));
    }
}
