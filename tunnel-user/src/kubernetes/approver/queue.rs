//! Requests that wait for a decision, the oldest first.
//!
//! ```text
//!  ready --next--> asked --> (gone, once the API server shows the decision)
//!    ^               |  \--failed--> again, later
//!    \--reconsider-- left
//! ```
//! One that has to wait never holds up those behind it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

/// Waits after a failed answer: from the first, doubling, to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Requests by name, each with what has to be known of it.
#[derive(Debug)]
pub(super) struct Queue<O, T> {
    /// In order of creation; the name tells apart what was created in one second.
    waiting: BTreeMap<(O, String), Entry<T>>,
    created: HashMap<String, O>,
}

#[derive(Debug)]
struct Entry<T> {
    request: T,
    state: State,
    failures: u32,
    /// Why it was left, so that the same is not said twice.
    said: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Ready,
    Asked,
    Left,
    Again(Instant),
}

impl<O: Ord + Clone, T> Queue<O, T> {
    pub(super) fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            created: HashMap::new(),
        }
    }

    /// A request is there, or has changed.
    pub(super) fn put(&mut self, name: &str, created: O, request: T) {
        let key = (created.clone(), name.to_owned());
        if let Some(entry) = self.waiting.get_mut(&key) {
            entry.request = request;
            return;
        }
        self.remove(name);
        self.created.insert(name.to_owned(), created);
        let entry = Entry {
            request,
            state: State::Ready,
            failures: 0,
            said: None,
        };
        self.waiting.insert(key, entry);
    }

    /// A request is decided or gone.
    pub(super) fn remove(&mut self, name: &str) {
        if let Some(created) = self.created.remove(name) {
            self.waiting.remove(&(created, name.to_owned()));
        }
    }

    /// No request exists but these.
    pub(super) fn retain(&mut self, names: &HashSet<String>) {
        let gone: Vec<_> = self
            .created
            .keys()
            .filter(|name| !names.contains(*name))
            .cloned()
            .collect();
        for name in gone {
            self.remove(&name);
        }
    }

    /// The oldest request whose turn it is. It is not handed out again before its answer.
    pub(super) fn next(&mut self, now: Instant) -> Option<(String, &T)> {
        let is_due = |state: &State| match state {
            State::Ready => true,
            State::Again(due) => *due <= now,
            State::Asked | State::Left => false,
        };
        let mut waiting = self.waiting.iter_mut();
        let ((_, name), entry) = waiting.find(|(_, entry)| is_due(&entry.state))?;
        entry.state = State::Asked;
        Some((name.clone(), &entry.request))
    }

    /// It cannot be decided yet, for this reason; whether that is news.
    pub(super) fn leave(&mut self, name: &str, reason: String) -> bool {
        let Some(entry) = self.entry(name) else {
            return false;
        };
        entry.state = State::Left;
        let is_news = entry.said.as_ref() != Some(&reason);
        entry.said = Some(reason);
        is_news
    }

    /// The decision could not be written: it is made again, each time later.
    pub(super) fn failed(&mut self, name: &str, now: Instant) {
        if let Some(entry) = self.entry(name) {
            let wait = FIRST_WAIT
                .saturating_mul(1 << entry.failures.min(16))
                .min(LONGEST_WAIT);
            entry.failures = entry.failures.saturating_add(1);
            entry.state = State::Again(now + wait);
        }
    }

    /// What was left may be decided now.
    pub(super) fn reconsider(&mut self) {
        for entry in self.waiting.values_mut() {
            if entry.state == State::Left {
                entry.state = State::Ready;
            }
        }
    }

    /// When the next failed one is due again.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = self.waiting.values().filter_map(|entry| match entry.state {
            State::Again(due) => Some(due),
            State::Ready | State::Asked | State::Left => None,
        });
        due.min()
    }

    /// How many are left undecided.
    pub(super) fn left(&self) -> usize {
        self.waiting
            .values()
            .filter(|entry| entry.state == State::Left)
            .count()
    }

    fn entry(&mut self, name: &str) -> Option<&mut Entry<T>> {
        let created = self.created.get(name)?.clone();
        self.waiting.get_mut(&(created, name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(names: &[(&str, u32)]) -> Queue<u32, ()> {
        let mut queue = Queue::new();
        for (name, created) in names {
            queue.put(name, *created, ());
        }
        queue
    }

    fn next(queue: &mut Queue<u32, ()>, now: Instant) -> Option<String> {
        queue.next(now).map(|(name, ())| name)
    }

    #[test]
    fn the_oldest_comes_first_and_each_once() {
        let now = Instant::now();
        let mut queue = queue(&[("c", 2), ("a", 3), ("b", 2)]);
        let order: Vec<_> = std::iter::from_fn(|| next(&mut queue, now)).collect();
        assert_eq!(order, ["b", "c", "a"]);
        queue.put("b", 2, ());
        assert_eq!(next(&mut queue, now), None, "asked already");
    }

    #[test]
    fn who_is_left_or_fails_does_not_hold_up_the_others_and_comes_back() {
        let now = Instant::now();
        let mut queue = queue(&[("a", 1), ("b", 2), ("c", 3)]);
        for _ in 0..2 {
            next(&mut queue, now);
        }
        assert!(queue.leave("a", "why".to_owned()));
        queue.failed("b", now);
        assert_eq!(queue.due(), Some(now + FIRST_WAIT));
        assert_eq!(next(&mut queue, now).as_deref(), Some("c"));
        assert_eq!(queue.left(), 1);

        queue.reconsider();
        assert_eq!(next(&mut queue, now).as_deref(), Some("a"));
        assert!(!queue.leave("a", "why".to_owned()), "said before");
        assert_eq!(next(&mut queue, now + FIRST_WAIT).as_deref(), Some("b"));
        queue.failed("b", now);
        assert_eq!(queue.due(), Some(now + 2 * FIRST_WAIT));
    }

    #[test]
    fn what_is_gone_is_not_asked_for() {
        let now = Instant::now();
        let mut queue = queue(&[("a", 1), ("b", 2), ("c", 3)]);
        queue.remove("a");
        queue.retain(&["c".to_owned()].into());
        queue.failed("a", now);
        assert_eq!(next(&mut queue, now).as_deref(), Some("c"));
        assert_eq!(next(&mut queue, now), None);
    }

    #[test]
    fn a_new_request_of_an_old_name_takes_its_place() {
        let now = Instant::now();
        let mut queue = queue(&[("a", 1), ("b", 2)]);
        queue.put("a", 3, ());
        assert_eq!(next(&mut queue, now).as_deref(), Some("b"));
        assert_eq!(next(&mut queue, now).as_deref(), Some("a"));
        assert_eq!(next(&mut queue, now), None);
    }
}
