//! Requests that wait for a decision: every requester's turn comes, and of one the oldest first.
//!
//! ```text
//!  ready --next--> asked --> (gone, once the API server shows the decision)
//!    ^               |  \--failed--> again, later
//!    \--reconsider-- left
//! ```
//! One that has to wait never holds up those behind it, and costs nothing until what it waits for
//! changes: a single node can make any number of requests that cannot be decided.

mod ready;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use self::ready::Ready;
use super::{csr_request::RequesterKey, decision::Dependency};

/// Waits after a failed answer: from the first, doubling, to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Requests of one requester that are not decided, and of all together. Of a requester that has more
/// the oldest is to be denied; of all, that of whoever has most.
pub(super) const MOST_OF_ONE: usize = 32;
const MOST: usize = 16 * 1024;

/// Requests by name, each with what has to be known of it.
#[derive(Debug)]
pub(super) struct Queue<O, T> {
    waiting: HashMap<String, Entry<O, T>>,
    ready: Ready<O>,
    left: BTreeMap<Dependency, HashSet<String>>,
    left_count: usize,
    due: BTreeSet<(Instant, String)>,
    /// What is to be decided, by requester and in order of creation.
    undecided: BTreeMap<RequesterKey, BTreeSet<(O, String)>>,
    undecided_count: usize,
    /// Whether there was no room for a request.
    left_out: bool,
}

/// What is to be done about a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn<'a, T> {
    /// It is to be decided.
    Decide(&'a T),
    /// Its requester has too many: it is to be denied, whatever it says.
    Deny,
}

#[derive(Debug)]
struct Entry<O, T> {
    created: O,
    asker: RequesterKey,
    /// When it was put here first.
    seen: Instant,
    /// `None` once it is to be denied: what it says is not kept.
    request: Option<T>,
    state: RequestState,
    failures: u32,
    /// Why it was left, so that the same is not said twice.
    said: Option<String>,
}

#[derive(Clone, Debug)]
enum RequestState {
    Ready,
    Asked,
    /// Until this changes, or the time has come.
    Left(Dependency, Option<Instant>),
    Again(Instant),
}

impl<O: Ord + Clone, T> Queue<O, T> {
    pub(super) fn new() -> Self {
        Self {
            waiting: HashMap::new(),
            ready: Ready::new(),
            left: BTreeMap::new(),
            left_count: 0,
            due: BTreeSet::new(),
            undecided: BTreeMap::new(),
            undecided_count: 0,
            left_out: false,
        }
    }

    /// A request is there, or has changed.
    pub(super) fn put(
        &mut self,
        name: &str,
        (created, asker): (O, RequesterKey),
        request: T,
        now: Instant,
    ) {
        let known = self.waiting.get_mut(name);
        if let Some(entry) = known.filter(|entry| entry.created == created) {
            if let Some(known) = &mut entry.request {
                *known = request;
            }
            return;
        }
        self.remove(name);
        if !self.make_room(&asker) {
            self.left_out = true;
            return;
        }
        let place = (created.clone(), name.to_owned());
        self.undecided
            .entry(asker.clone())
            .or_default()
            .insert(place);
        self.undecided_count += 1;
        let entry = Entry {
            created,
            asker,
            seen: now,
            request: Some(request),
            state: RequestState::Asked,
            failures: 0,
            said: None,
        };
        self.waiting.insert(name.to_owned(), entry);
        self.turn(name, RequestState::Ready);
    }

    /// A request is decided or gone.
    pub(super) fn remove(&mut self, name: &str) {
        self.turn(name, RequestState::Asked);
        self.forget(name);
        self.waiting.remove(name);
    }

    /// Of the requests that `is_listed` tells of, no others exist than these.
    pub(super) fn retain(&mut self, names: &HashSet<String>, is_listed: impl Fn(&T) -> bool) {
        let is_gone = |(name, entry): &(&String, &Entry<O, T>)| {
            entry.request.as_ref().is_some_and(&is_listed) && !names.contains(*name)
        };
        let known = self.waiting.iter();
        let gone: Vec<_> = known
            .filter(is_gone)
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.remove(&name);
        }
    }

    /// The oldest request of the requester whose turn it is, and how long it has been here. It is
    /// not handed out again before its answer.
    pub(super) fn next(&mut self, now: Instant) -> Option<(String, Turn<'_, T>, Duration)> {
        while let Some((_, name)) = self.due.first().filter(|(due, _)| *due <= now) {
            let name = name.clone();
            self.turn(&name, RequestState::Ready);
        }
        let name = self.ready.next()?;
        self.turn(&name, RequestState::Asked);
        let entry = self.waiting.get(&name)?;
        let age = now.saturating_duration_since(entry.seen);
        let turn = entry.request.as_ref().map_or(Turn::Deny, Turn::Decide);
        Some((name, turn, age))
    }

    /// Whether a request was left out for which there is room by now: all have to be listed anew.
    pub(super) fn take_left_out(&mut self) -> bool {
        self.undecided_count <= MOST / 2 && std::mem::take(&mut self.left_out)
    }

    /// It cannot be decided before this changes, or that moment has come, for this reason; whether
    /// that is news.
    pub(super) fn leave(
        &mut self,
        name: &str,
        dependency: Dependency,
        until: Option<Instant>,
        reason: String,
    ) -> bool {
        self.turn(name, RequestState::Left(dependency, until));
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
            self.turn(name, RequestState::Again(now + wait));
        }
    }

    /// What was left because of such a thing may be decided now.
    pub(super) fn reconsider(&mut self, has_changed: impl Fn(&Dependency) -> bool) {
        let changed: Vec<_> = self
            .left
            .iter()
            .filter(|(dependency, _)| has_changed(dependency))
            .flat_map(|(_, names)| names.iter().cloned())
            .collect();
        for name in changed {
            self.turn(&name, RequestState::Ready);
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

    /// Whether another request of this requester may be kept. One that makes room for it is to be denied.
    fn make_room(&mut self, asker: &RequesterKey) -> bool {
        let of_asker = self.undecided.get(asker).map_or(0, BTreeSet::len);
        if of_asker >= MOST_OF_ONE {
            self.give_up_oldest(asker);
        } else if self.undecided_count >= MOST {
            let by_count = self
                .undecided
                .iter()
                .max_by_key(|(_, requests)| requests.len());
            let most = by_count.filter(|(_, requests)| requests.len() > of_asker + 1);
            let Some(most) = most.map(|(asker, _)| asker.clone()) else {
                return false;
            };
            self.give_up_oldest(&most);
        }
        true
    }

    fn give_up_oldest(&mut self, asker: &RequesterKey) {
        let oldest = self.undecided.get(asker).and_then(BTreeSet::first);
        let Some((_, name)) = oldest.cloned() else {
            return;
        };
        self.forget(&name);
        let Some(entry) = self.waiting.get_mut(&name) else {
            return;
        };
        entry.request = None;
        // A decision that is being written stands; if it cannot be written, this one follows.
        if !matches!(entry.state, RequestState::Asked) {
            self.turn(&name, RequestState::Ready);
        }
    }

    /// It does not count among what is to be decided any more.
    fn forget(&mut self, name: &str) {
        let Some(entry) = self.waiting.get(name) else {
            return;
        };
        let place = (entry.created.clone(), name.to_owned());
        if let Some(requests) = self.undecided.get_mut(&entry.asker)
            && requests.remove(&place)
        {
            self.undecided_count -= 1;
            if requests.is_empty() {
                self.undecided.remove(&entry.asker);
            }
        }
    }

    /// The only place where a state changes, so that the orders agree with it.
    fn turn(&mut self, name: &str, state: RequestState) {
        let Some(entry) = self.waiting.get_mut(name) else {
            return;
        };
        let name = name.to_owned();
        let place = (entry.created.clone(), name.clone());
        let before = std::mem::replace(&mut entry.state, state.clone());
        match before {
            RequestState::Ready => self.ready.remove(&entry.asker, &place),
            RequestState::Left(dependency, until) => {
                self.left_count -= 1;
                if let Some(left) = self.left.get_mut(&dependency) {
                    left.remove(&name);
                    if left.is_empty() {
                        self.left.remove(&dependency);
                    }
                }
                if let Some(due) = until {
                    self.due.remove(&(due, name.clone()));
                }
            }
            RequestState::Again(due) => drop(self.due.remove(&(due, name.clone()))),
            RequestState::Asked => {}
        }
        match state {
            RequestState::Ready => self.ready.insert(&entry.asker, place),
            RequestState::Left(dependency, until) => {
                self.left_count += 1;
                self.due.extend(until.map(|due| (due, name.clone())));
                self.left.entry(dependency).or_default().insert(name);
            }
            RequestState::Again(due) => drop(self.due.insert((due, name))),
            RequestState::Asked => {}
        }
    }
}

#[cfg(test)]
mod tests;
