//! When the next write is due.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;

/// What comes within this time of a change is written with it.
const SETTLE: Duration = Duration::from_millis(100);
/// Between two writes of one object: whoever follows it gets all of it each time.
const GAP: Duration = Duration::from_millis(500);

/// Turns what differs into moments to write: within a second of a change, unless writing fails.
#[derive(Debug, Default)]
pub(super) struct Pace {
    due: Option<Instant>,
    /// Not before, because of what was written or failed last.
    earliest: Option<Instant>,
    failures: u32,
    backoff: Backoff,
}

impl Pace {
    /// Whether something differs now.
    pub(super) fn need(&mut self, differs: bool, now: Instant) {
        if differs {
            let settled = now + SETTLE;
            let due = self
                .earliest
                .map_or(settled, |earliest| settled.max(earliest));
            self.due.get_or_insert(due);
        } else {
            self.due = None;
        }
    }

    /// When to write; `None` while nothing differs.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The write has succeeded.
    pub(super) fn wrote(&mut self, now: Instant) {
        self.due = None;
        self.earliest = Some(now + GAP);
        self.failures = 0;
        self.backoff.reset();
    }

    /// The write has failed, for so many times in a row.
    pub(super) fn failed(&mut self, now: Instant) -> u32 {
        self.due = None;
        self.earliest = Some(now + self.backoff.after(Duration::ZERO));
        self.failures += 1;
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_is_written_soon_and_a_burst_at_once_with_it() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.need(false, start);
        assert_eq!(pace.due(), None);
        pace.need(true, start);
        pace.need(true, start + SETTLE / 2);
        assert_eq!(pace.due(), Some(start + SETTLE));
    }

    #[test]
    fn under_constant_change_each_write_is_within_a_second_and_no_two_are_close() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let mut written = Vec::new();
        for milliseconds in 0..10_000 {
            let now = start + Duration::from_millis(milliseconds);
            pace.need(true, now);
            if pace.due().is_some_and(|due| due <= now) {
                pace.wrote(now);
                written.push(now);
            }
        }
        assert_eq!(written[0], start + SETTLE);
        for pair in written.windows(2) {
            let apart = pair[1] - pair[0];
            assert!(
                apart >= GAP && apart < Duration::from_millis(900),
                "{apart:?}"
            );
        }
    }

    #[test]
    fn what_differs_no_longer_is_not_written() {
        let start = Instant::now();
        let mut pace = Pace::default();
        pace.need(true, start);
        pace.need(false, start);
        assert_eq!(pace.due(), None);
    }

    #[test]
    fn a_failure_is_tried_again_ever_later_and_a_success_ends_that() {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        let mut waits = Vec::new();
        for n in 1..=8 {
            assert_eq!(pace.failed(now), n);
            pace.need(true, now);
            let due = pace.due().unwrap();
            waits.push(due - now);
            now = due;
        }
        assert!(waits[0] <= Duration::from_millis(500), "{waits:?}");
        assert!(waits[7] >= Duration::from_secs(5), "{waits:?}");
        pace.wrote(now);
        assert_eq!(pace.failed(now), 1);
        pace.need(true, now);
        assert!(pace.due().unwrap() - now <= Duration::from_millis(500));
    }
}
