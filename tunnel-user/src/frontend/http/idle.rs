//! What is kept for whoever asks for the same next: bounded in number and time, the newest first.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Kept things, by key.
#[derive(Debug)]
pub(super) struct Idle<K, V> {
    most: usize,
    time: Duration,
    /// The oldest first.
    kept: VecDeque<Kept<K, V>>,
}

#[derive(Debug)]
struct Kept<K, V> {
    key: K,
    since: Instant,
    value: V,
}

impl<K: Eq, V> Idle<K, V> {
    /// At most so many, each for so long.
    pub(super) fn new(most: usize, time: Duration) -> Self {
        Self {
            most,
            time,
            kept: VecDeque::new(),
        }
    }

    /// Keeps it, if need be instead of the oldest.
    pub(super) fn put(&mut self, key: K, value: V, now: Instant) {
        if self.kept.len() >= self.most {
            self.kept.pop_front();
        }
        let since = now;
        self.kept.push_back(Kept { key, since, value });
    }

    /// The newest with this key.
    pub(super) fn take(&mut self, key: &K, now: Instant) -> Option<V> {
        let index = self.kept.iter().rposition(|kept| kept.key == *key)?;
        let kept = self.kept.remove(index)?;
        (now < kept.since + self.time).then_some(kept.value)
    }

    /// Drops what is too old, and what is of no use.
    pub(super) fn let_go(&mut self, now: Instant, is_of_use: impl Fn(&V) -> bool) {
        let time = self.time;
        self.kept
            .retain(|kept| now < kept.since + time && is_of_use(&kept.value));
    }

    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_key_is_taken_the_oldest_of_all_makes_room_and_none_grows_old() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut idle = Idle::new(3, Duration::from_secs(30));
        for (seconds, (key, value)) in (0..).zip([("a", 1), ("a", 2), ("b", 3), ("a", 4)]) {
            idle.put(key, value, after(seconds));
        }
        assert_eq!(idle.take(&"a", after(4)), Some(4));
        assert_eq!(idle.take(&"a", after(4)), Some(2));
        assert_eq!(idle.take(&"a", after(4)), None, "it had to make room");
        assert_eq!(idle.take(&"b", after(32)), None, "it is too old");
        assert_eq!(idle.take(&"b", after(4)), None, "and gone");
    }

    #[test]
    fn what_is_old_or_of_no_use_is_let_go() {
        let start = Instant::now();
        let mut idle = Idle::new(9, Duration::from_secs(30));
        idle.put("a", 1, start);
        idle.put("b", 2, start + Duration::from_secs(20));
        idle.put("c", 3, start + Duration::from_secs(20));
        idle.let_go(start + Duration::from_secs(30), |value| *value != 3);
        assert_eq!(idle.kept.len(), 1);
        assert_eq!(idle.take(&"b", start + Duration::from_secs(31)), Some(2));
    }
}
