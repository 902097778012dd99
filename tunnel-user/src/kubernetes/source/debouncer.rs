//! When the next snapshot is due.

use std::time::Duration;

use tokio::time::Instant;

use crate::wait::sleep_until_opt;

/// Between two snapshots: a list of ten thousand nodes is walked for each. The first change after a
/// quiet time does not wait.
const SETTLE: Duration = Duration::from_millis(50);

/// Turns changes into moments to publish.
#[derive(Default)]
pub(in crate::kubernetes) struct Debouncer {
    last: Option<Instant>,
    due: Option<Instant>,
}

impl Debouncer {
    /// Something has changed.
    pub(in crate::kubernetes) fn ask(&mut self, now: Instant) {
        let earliest = self.last.map_or(now, |last| now.max(last + SETTLE));
        self.due.get_or_insert(earliest);
    }

    pub(in crate::kubernetes) fn published(&mut self, now: Instant) {
        *self = Self {
            last: Some(now),
            due: None,
        };
    }

    /// Waits until a snapshot is due; for ever while nothing has changed.
    pub(in crate::kubernetes) async fn due(&self) {
        sleep_until_opt(self.due).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_is_published_at_once_and_a_crowd_in_one() {
        let start = Instant::now();
        let mut debouncer = Debouncer::default();
        debouncer.ask(start);
        assert_eq!(debouncer.due, Some(start));
        debouncer.published(start);
        assert_eq!(debouncer.due, None);
        debouncer.ask(start + SETTLE / 4);
        debouncer.ask(start + SETTLE / 2);
        assert_eq!(debouncer.due, Some(start + SETTLE));
        debouncer.published(start + SETTLE);
        let later = start + 3 * SETTLE;
        debouncer.ask(later);
        assert_eq!(debouncer.due, Some(later));
    }
}
