//! Requests that wait for a decision: every requester's turn comes, and of one the oldest first.
//!
//! ```text
//!  ready --next--> asked --> (gone, once the API server shows the decision)
//!    ^               |  \--failed--> again, later
//!    \--reconsider-- left
//! ```
//! One that has to wait never holds up those behind it, and costs nothing until what it waits for
//! changes: a single node can make any number of requests that cannot be decided.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Bound,
    time::{Duration, Instant},
};

use super::{claim::Asker, decision::Concern};

/// Waits after a failed answer: from the first, doubling, to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Requests by name, each with what has to be known of it.
#[derive(Debug)]
pub(super) struct Queue<O, T> {
    waiting: HashMap<String, Entry<O, T>>,
    /// In order of creation; the name tells apart what was created in one second.
    ready: BTreeMap<Asker, BTreeSet<(O, String)>>,
    left: BTreeMap<Concern, HashSet<String>>,
    left_count: usize,
    due: BTreeSet<(Instant, String)>,
    /// Whose turn it was; whoever follows in order is next.
    served: Option<Asker>,
}

#[derive(Debug)]
struct Entry<O, T> {
    created: O,
    asker: Asker,
    /// When it was put here first.
    seen: Instant,
    request: T,
    state: State,
    failures: u32,
    /// Why it was left, so that the same is not said twice.
    said: Option<String>,
}

#[derive(Clone, Debug)]
enum State {
    Ready,
    Asked,
    /// Until this changes, or the time has come.
    Left(Concern, Option<Instant>),
    Again(Instant),
}

impl<O: Ord + Clone, T> Queue<O, T> {
    pub(super) fn new() -> Self {
        Self {
            waiting: HashMap::new(),
            ready: BTreeMap::new(),
            left: BTreeMap::new(),
            left_count: 0,
            due: BTreeSet::new(),
            served: None,
        }
    }

    /// A request is there, or has changed.
    pub(super) fn put(
        &mut self,
        name: &str,
        (created, asker): (O, Asker),
        request: T,
        now: Instant,
    ) {
        let known = self.waiting.get_mut(name);
        if let Some(entry) = known.filter(|entry| entry.created == created) {
            entry.request = request;
            return;
        }
        self.remove(name);
        let entry = Entry {
            created,
            asker,
            seen: now,
            request,
            state: State::Asked,
            failures: 0,
            said: None,
        };
        self.waiting.insert(name.to_owned(), entry);
        self.turn(name, State::Ready);
    }

    /// A request is decided or gone.
    pub(super) fn remove(&mut self, name: &str) {
        self.turn(name, State::Asked);
        self.waiting.remove(name);
    }

    /// No request exists but these.
    pub(super) fn retain(&mut self, names: &HashSet<String>) {
        let known = self.waiting.keys();
        let gone: Vec<_> = known
            .filter(|name| !names.contains(*name))
            .cloned()
            .collect();
        for name in gone {
            self.remove(&name);
        }
    }

    /// The oldest request of the requester whose turn it is, and how long it has been here. It is
    /// not handed out again before its answer.
    pub(super) fn next(&mut self, now: Instant) -> Option<(String, &T, Duration)> {
        while let Some((_, name)) = self.due.first().filter(|(due, _)| *due <= now) {
            let name = name.clone();
            self.turn(&name, State::Ready);
        }
        let asker = self.next_asker()?;
        let (_, name) = self.ready.get(&asker)?.first()?.clone();
        self.served = Some(asker);
        self.turn(&name, State::Asked);
        let entry = self.waiting.get(&name)?;
        let age = now.saturating_duration_since(entry.seen);
        Some((name, &entry.request, age))
    }

    /// It cannot be decided before this changes, or that moment has come, for this reason; whether
    /// that is news.
    pub(super) fn leave(
        &mut self,
        name: &str,
        concern: Concern,
        until: Option<Instant>,
        reason: String,
    ) -> bool {
        self.turn(name, State::Left(concern, until));
        let Some(entry) = self.waiting.get_mut(name) else {
            return false;
        };
        let is_news = entry.said.as_ref() != Some(&reason);
        entry.said = Some(reason);
        is_news
    }

    /// The decision could not be written: it is made again, each time later.
    pub(super) fn failed(&mut self, name: &str, now: Instant) {
        if let Some(entry) = self.waiting.get_mut(name) {
            let wait = FIRST_WAIT
                .saturating_mul(1 << entry.failures.min(16))
                .min(LONGEST_WAIT);
            entry.failures = entry.failures.saturating_add(1);
            self.turn(name, State::Again(now + wait));
        }
    }

    /// What was left because of such a thing may be decided now.
    pub(super) fn reconsider(&mut self, has_changed: impl Fn(&Concern) -> bool) {
        let changed: Vec<_> = self
            .left
            .iter()
            .filter(|(concern, _)| has_changed(concern))
            .flat_map(|(_, names)| names.iter().cloned())
            .collect();
        for name in changed {
            self.turn(&name, State::Ready);
        }
    }

    /// When the next one is due whose time was named.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// How many are left undecided.
    pub(super) fn left(&self) -> usize {
        self.left_count
    }

    fn next_asker(&self) -> Option<Asker> {
        let after = self
            .served
            .as_ref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let mut following = self.ready.range((after, Bound::Unbounded));
        let next = following.next().or_else(|| self.ready.first_key_value());
        next.map(|(asker, _)| asker.clone())
    }

    /// The only place where a state changes, so that the orders agree with it.
    fn turn(&mut self, name: &str, state: State) {
        let Some(entry) = self.waiting.get_mut(name) else {
            return;
        };
        let name = name.to_owned();
        let place = (entry.created.clone(), name.clone());
        let before = std::mem::replace(&mut entry.state, state.clone());
        match before {
            State::Ready => {
                if let Some(ready) = self.ready.get_mut(&entry.asker) {
                    ready.remove(&place);
                    if ready.is_empty() {
                        self.ready.remove(&entry.asker);
                    }
                }
            }
            State::Left(concern, until) => {
                self.left_count -= 1;
                if let Some(left) = self.left.get_mut(&concern) {
                    left.remove(&name);
                    if left.is_empty() {
                        self.left.remove(&concern);
                    }
                }
                if let Some(due) = until {
                    self.due.remove(&(due, name.clone()));
                }
            }
            State::Again(due) => drop(self.due.remove(&(due, name.clone()))),
            State::Asked => {}
        }
        match state {
            State::Ready => {
                let ready = self.ready.entry(entry.asker.clone()).or_default();
                ready.insert(place);
            }
            State::Left(concern, until) => {
                self.left_count += 1;
                self.due.extend(until.map(|due| (due, name.clone())));
                self.left.entry(concern).or_default().insert(name);
            }
            State::Again(due) => drop(self.due.insert((due, name))),
            State::Asked => {}
        }
    }
}

#[cfg(test)]
mod tests;
