//! Requests that can be decided, in the line of their requesters: whoever comes joins at its end, and so does whoever
//! was served and has more. However many ask, and under whatever names, nobody is passed twice.

use std::collections::{BTreeMap, BTreeSet};

use crate::kubernetes::approver::csr_request::RequesterKey;

#[derive(Debug)]
pub(super) struct Ready<O> {
    requests: BTreeMap<RequesterKey, Requests<O>>,
    line: BTreeMap<u64, RequesterKey>,
    /// The place behind the last.
    end: u64,
}

/// Those of one requester, in order of creation; the name tells apart what was created in one second.
#[derive(Debug)]
struct Requests<O> {
    place: u64,
    all: BTreeSet<(O, String)>,
}

impl<O: Ord + Clone> Ready<O> {
    pub(super) fn new() -> Self {
        Self {
            requests: BTreeMap::new(),
            line: BTreeMap::new(),
            end: 0,
        }
    }

    pub(super) fn insert(&mut self, asker: &RequesterKey, request: (O, String)) {
        if let Some(requests) = self.requests.get_mut(asker) {
            requests.all.insert(request);
            return;
        }
        let place = self.join(asker);
        let all = BTreeSet::from([request]);
        self.requests.insert(asker.clone(), Requests { place, all });
    }

    pub(super) fn remove(&mut self, asker: &RequesterKey, request: &(O, String)) {
        let Some(requests) = self.requests.get_mut(asker) else {
            return;
        };
        requests.all.remove(request);
        if requests.all.is_empty() {
            self.line.remove(&requests.place);
            self.requests.remove(asker);
        }
    }

    /// The oldest request of the first in the line, who goes to its end.
    pub(super) fn next(&mut self) -> Option<String> {
        let (_, asker) = self.line.pop_first()?;
        let place = self.join(&asker);
        let requests = self.requests.get_mut(&asker)?;
        requests.place = place;
        let (_, name) = requests.all.first()?;
        Some(name.clone())
    }

    fn join(&mut self, asker: &RequesterKey) -> u64 {
        let place = self.end;
        self.end += 1;
        self.line.insert(place, asker.clone());
        place
    }
}
