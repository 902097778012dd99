//! Whether the accept loop takes clients: a plain state machine.
//!
//! A client whose connect is captured by a server that cannot accept hangs, so the heartbeat stops
//! while accepting has failed for some time. From then on nothing comes that could be accepted:
//! what tells that it works again is that there is room for a descriptor.

use std::time::Duration;

use tokio::time::Instant;

/// How long accepting may fail before the gate closes, and work before it opens again.
pub(super) const SETTLE: Duration = Duration::from_secs(1);

/// How accepting went up to now.
#[derive(Debug, Default)]
pub(super) struct AcceptHealth {
    state: AcceptState,
    /// Whether an accept failed since the last [`AcceptHealth::check`].
    failed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum AcceptState {
    /// The last accept worked.
    #[default]
    Works,
    /// It failed, not long ago.
    Fails { since: Instant },
    /// It has failed for too long: clients must not be sent here.
    Stopped { works_since: Option<Instant> },
}

/// What the world is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Clients can no longer be accepted.
    Stopped,
    /// They can again.
    Resumed,
}

impl AcceptHealth {
    /// An accept failed for a reason of this machine's.
    pub(super) fn failed(&mut self, now: Instant) {
        self.failed = true;
        match &mut self.state {
            AcceptState::Works => self.state = AcceptState::Fails { since: now },
            AcceptState::Fails { .. } => {}
            AcceptState::Stopped { works_since } => *works_since = None,
        }
    }

    /// An accept worked, in its ordinary way.
    pub(super) fn worked(&mut self, now: Instant) {
        match &mut self.state {
            AcceptState::Works => {}
            AcceptState::Fails { .. } => self.state = AcceptState::Works,
            AcceptState::Stopped { works_since } => {
                works_since.get_or_insert(now);
            }
        }
    }

    /// To be called every second; `has_room` tells whether one more client could be taken.
    pub(super) fn check(&mut self, now: Instant, has_room: bool) -> Option<Change> {
        let failed = std::mem::take(&mut self.failed);
        if self.is_well() {
            return None;
        }
        if has_room && !failed {
            self.worked(now);
        } else if !has_room {
            self.failed(now);
            self.failed = false;
        }
        let over = |since| now.saturating_duration_since(since) >= SETTLE;
        match self.state {
            AcceptState::Fails { since } if over(since) => {
                self.state = AcceptState::Stopped { works_since: None };
                Some(Change::Stopped)
            }
            AcceptState::Stopped {
                works_since: Some(since),
            } if over(since) => {
                self.state = AcceptState::Works;
                Some(Change::Resumed)
            }
            AcceptState::Works | AcceptState::Fails { .. } | AcceptState::Stopped { .. } => None,
        }
    }

    /// Whether there is nothing to check.
    pub(super) fn is_well(&self) -> bool {
        self.state == AcceptState::Works
    }

    /// Whether clients may be sent here.
    pub(super) fn may_beat(&self) -> bool {
        !matches!(self.state, AcceptState::Stopped { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_failure_that_is_over_within_a_second_stops_nothing() {
        let (mut health, start) = (AcceptHealth::default(), Instant::now());
        health.failed(start);
        assert_eq!(health.check(start + seconds(0.5), false), None);
        health.worked(start + seconds(0.9));
        assert_eq!(health.check(start + seconds(1.5), true), None);
        assert!(health.may_beat() && health.is_well());
        // Nor does one client who was reset, when there is room again for the next.
        health.failed(start + seconds(2.0));
        assert_eq!(health.check(start + seconds(2.5), true), None);
        assert_eq!(health.check(start + seconds(3.5), true), None);
        assert!(health.may_beat() && health.is_well());
    }

    #[test]
    fn the_heartbeat_stops_once_accepting_has_failed_for_a_second() {
        let (mut health, start) = (AcceptHealth::default(), Instant::now());
        health.failed(start);
        assert_eq!(health.check(start + seconds(0.5), false), None);
        assert!(health.may_beat());
        let change = health.check(start + seconds(1.5), false);
        assert_eq!(change, Some(Change::Stopped));
        assert!(!health.may_beat());
        assert_eq!(health.check(start + seconds(2.5), false), None, "once");
    }

    #[test]
    fn it_resumes_when_there_has_been_room_for_a_second_though_nobody_comes() {
        let (mut health, start) = (AcceptHealth::default(), Instant::now());
        health.failed(start);
        health.check(start + seconds(1.0), false).unwrap();
        assert_eq!(health.check(start + seconds(60.0), true), None);
        // Gone again meanwhile.
        assert_eq!(health.check(start + seconds(60.5), false), None);
        assert_eq!(health.check(start + seconds(61.5), true), None);
        let change = health.check(start + seconds(62.5), true);
        assert_eq!(change, Some(Change::Resumed));
        assert!(health.may_beat() && health.is_well());
    }

    #[test]
    fn failures_that_have_nothing_to_do_with_descriptors_stop_it_as_well() {
        let (mut health, start) = (AcceptHealth::default(), Instant::now());
        health.failed(start);
        health.failed(start + seconds(0.9));
        let change = health.check(start + seconds(1.0), true);
        assert_eq!(change, Some(Change::Stopped));
        health.failed(start + seconds(1.5));
        assert_eq!(health.check(start + seconds(2.0), true), None);
        assert_eq!(health.check(start + seconds(3.0), true), None);
        let change = health.check(start + seconds(4.0), true);
        assert_eq!(change, Some(Change::Resumed));
    }
}
