//! The servers of an agent: whom to dial next, and which session to let go.
//!
//! ```text
//!   addresses to dial           servers, each with an id
//!   flag, or Service            as many as they say there are
//!     a.example:10262  ------>  s-1       one session with each, whatever leads to it
//!     10.0.0.1:31008   --?--->  s-1, s-2  several behind one address: dial until none is missing
//! ```
//! Two rules: an address without a session is dialled, unless it led to a server that another
//! address has a session with; and while the sessions are fewer than the servers say there are
//! servers, addresses are dialled for the missing ones. Both end where there are as many sessions as the agent may
//! have.

mod address;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    time::{Duration, Instant},
};

use self::address::{Address, Purpose};
use super::discovery::Discovery;
use crate::{backoff::jittered, model::ServerAddr};

/// The time over which agents spread that learn of new addresses at the same time.
const SPREAD: Duration = Duration::from_secs(1);

/// New sessions, after a renewal, wait for this part of what the old certificate has left at most:
/// on a busy machine the rest is needed for handshakes.
const SPREAD_PART: u32 = 16;

/// Names one session of this agent, in the order in which they were established.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SessionId(pub(super) u64);

/// A decision over sessions, the servers' number and addresses. It knows no sockets.
#[derive(Debug)]
pub(super) struct SessionSet {
    /// Best first.
    addresses: Vec<Address>,
    sessions: BTreeMap<SessionId, SessionEntry>,
    discovery: Discovery,
    /// Dials so far: who was dialled longest ago is searched next.
    dials: u64,
    /// When sessions begin anew that were begun with an older certificate.
    renewal_at: Option<Instant>,
    /// How many servers are enough, if not all are needed.
    most: Option<NonZeroU32>,
    /// With whom an agent begins that does not need all: another one of many begins elsewhere.
    first: usize,
}

/// What to do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// Dial these; each is answered with [`SessionSet::established`], [`SessionSet::already_held`] or
    /// [`SessionSet::failed`].
    pub(super) dial: Vec<ServerAddr>,
    /// Let these end with their last connection.
    pub(super) drain: Vec<SessionId>,
    /// New sessions take the place of these; they carry on until then.
    pub(super) renew: Vec<SessionId>,
    /// Ask again then, whatever happens until then.
    pub(super) again_at: Option<Instant>,
}

#[derive(Debug)]
struct SessionEntry {
    server: ServerAddr,
    server_id: String,
    count: u32,
    state: EntryState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryState {
    /// It counts.
    Staying,
    /// Its address is not listed any more. It is of use until its server is reached otherwise, or
    /// proves to be none any more.
    Unlisted,
    /// It only finishes what it carries.
    Leaving,
}

impl SessionSet {
    pub(super) fn new(most: Option<NonZeroU32>, now: Instant) -> Self {
        Self {
            most,
            first: most.map_or(0, |_| rand::random::<u32>() as usize),
            addresses: Vec::new(),
            sessions: BTreeMap::new(),
            discovery: Discovery::new(now),
            dials: 0,
            renewal_at: None,
        }
    }

    /// These are the addresses from now on, best first.
    pub(super) fn list(&mut self, servers: &[ServerAddr], now: Instant) {
        let mut known = std::mem::take(&mut self.addresses);
        // A change reaches all agents of a cluster at the same time.
        let due = if known.is_empty() {
            now
        } else {
            now + jittered(SPREAD)
        };
        for server in servers {
            if self.address(server).is_some() {
                continue;
            }
            let position = known.iter().position(|address| address.server == *server);
            self.addresses.push(match position {
                Some(position) => known.swap_remove(position),
                None => Address::new(server.clone(), due),
            });
        }
        for held in self.sessions.values_mut() {
            let listed = servers.contains(&held.server);
            held.state = match held.state {
                EntryState::Staying | EntryState::Unlisted if listed => EntryState::Staying,
                EntryState::Staying | EntryState::Unlisted => EntryState::Unlisted,
                EntryState::Leaving => EntryState::Leaving,
            };
        }
        self.discovery.urge_all(self.count(), now);
    }

    /// A dial has led to a session. Returns the sessions that it replaces: two with one server
    /// are one too many, and the server keeps the newest.
    pub(super) fn established(
        &mut self,
        session: SessionId,
        server: &ServerAddr,
        (server_id, count): (&str, u32),
        now: Instant,
    ) -> Vec<SessionId> {
        let expected = self.count();
        let replaced = self.replace(server, server_id);
        let purpose = self.answered(server);
        let state = match self.address(server) {
            Some(address) => {
                address.leads_to = None;
                EntryState::Staying
            }
            None => EntryState::Unlisted,
        };
        let held = SessionEntry {
            server: server.clone(),
            server_id: server_id.to_owned(),
            count,
            state,
        };
        self.sessions.insert(session, held);
        if self.count() > expected {
            self.discovery.urge(self.count(), now);
        } else if purpose == Some(Purpose::Discovery) && !replaced.is_empty() {
            self.discovery.in_vain(now);
        }
        replaced
    }

    /// A dial has led to a server that this agent has a session with.
    pub(super) fn already_held(
        &mut self,
        server: &ServerAddr,
        (server_id, count): (&str, u32),
        now: Instant,
    ) {
        if self.answered(server) == Some(Purpose::Discovery) {
            self.discovery.in_vain(now);
        }
        let is_so = self.staying().any(|held| held.server_id == server_id);
        if let Some(address) = self.address(server) {
            address.leads_to = Some(server_id.to_owned());
            if is_so {
                address.backoff.reset();
            } else {
                // It has ended meanwhile; or the server errs, and is not to be hammered.
                address.due = now + address.backoff.after(Duration::ZERO);
            }
        }
        for held in self.sessions.values_mut() {
            if held.server_id == server_id {
                held.count = count;
            }
        }
    }

    /// A dial has failed.
    pub(super) fn failed(&mut self, server: &ServerAddr, now: Instant) {
        if self.answered(server) == Some(Purpose::Discovery) {
            self.discovery.in_vain(now);
        } else if let Some(address) = self.address(server) {
            address.due = now + address.backoff.after(Duration::ZERO);
        }
    }

    /// Another session is to take this one's place: its server is about to leave, or it has carried all that it can.
    pub(super) fn asked_to_move(&mut self, session: SessionId, now: Instant) {
        let Some(held) = self.sessions.get_mut(&session) else {
            return;
        };
        held.state = EntryState::Leaving;
        let server = held.server.clone();
        if let Some(address) = self.address(&server) {
            address.backoff.reset();
            address.due = now;
        }
        self.discovery.urge(self.count(), now);
    }

    /// The agent has another certificate: sessions are worth what the one proves that they began
    /// with, and begin anew, well within the time that the one in use has `left`. Servers that were
    /// not to be reached, or that refused the old one, are dialled soon.
    pub(super) fn proved_anew(&mut self, left: Duration, now: Instant) {
        // What is proved and what proves it change one after the other.
        let at = now + jittered(SPREAD.min(left / SPREAD_PART));
        self.renewal_at = Some(self.renewal_at.map_or(at, |planned| planned.min(at)));
        for address in &mut self.addresses {
            address.backoff.reset();
            address.due = address.due.min(at);
        }
    }

    /// The server says how many there are now, and that they are not all the same as before.
    pub(super) fn counted(&mut self, session: SessionId, count: u32, now: Instant) {
        if let Some(held) = self.sessions.get_mut(&session) {
            held.count = count;
            self.discovery.urge_all(self.count(), now);
        }
    }

    /// A session has ended after this time.
    pub(super) fn ended(&mut self, session: SessionId, lasted: Duration, now: Instant) {
        let Some(held) = self.sessions.remove(&session) else {
            return;
        };
        if held.state == EntryState::Leaving {
            return;
        }
        if let Some(address) = self.address(&held.server) {
            address.due = now + address.backoff.after(lasted);
        }
        self.discovery.lost(lasted, now);
    }

    /// The servers that need no other session, for a dial to tell.
    pub(super) fn sessions_with(&self) -> Vec<String> {
        let ids: BTreeSet<_> = self.staying().map(|held| &held.server_id).collect();
        ids.into_iter().cloned().collect()
    }

    /// What to do now; the dials count as begun.
    pub(super) fn next(&mut self, now: Instant) -> Step {
        let mut step = Step::default();
        let mut due = Vec::new();
        match self.renewal_at {
            Some(at) if at <= now => step.renew = self.renew(now),
            Some(at) => due.push(at),
            None => {}
        }
        for index in self.in_order() {
            let address = &self.addresses[index];
            if address.dialling.is_some() || !self.needs_session(address) || self.has_enough() {
                continue;
            }
            if address.due <= now {
                step.dial.push(self.dial(index, Purpose::Itself));
            } else {
                due.push(address.due);
            }
        }
        if self.is_missing_some() {
            match self.searched_next() {
                Some(index) if self.discovery.due() <= now => {
                    step.dial.push(self.dial(index, Purpose::Discovery));
                }
                Some(_) => due.push(self.discovery.due()),
                None => {}
            }
        } else {
            step.drain = self.let_unlisted_go();
        }
        step.again_at = due.into_iter().min();
        step
    }

    /// Where not all are needed, the one that was dialled last comes first: a server that asks for another session
    /// means whoever takes its place.
    fn in_order(&self) -> Vec<usize> {
        let count = self.addresses.len();
        let first = self.first.checked_rem(count).unwrap_or(0);
        let mut order: Vec<_> = (0..count).map(|index| (index + first) % count).collect();
        if self.most.is_some() {
            order.sort_by_key(|index| Reverse(self.addresses[*index].last_dial));
        }
        order
    }

    /// Whether there are as many sessions as there may be, those included that are about to be.
    fn has_enough(&self) -> bool {
        let dialling = self
            .addresses
            .iter()
            .filter(|address| address.dialling.is_some());
        let sessions = self.held() + dialling.count();
        self.most
            .is_some_and(|most| sessions >= most.get() as usize)
    }

    fn renew(&mut self, now: Instant) -> Vec<SessionId> {
        self.renewal_at = None;
        let held = self.sessions.iter();
        let staying = held.filter(|(_, held)| held.state == EntryState::Staying);
        let renewed: Vec<_> = staying.map(|(session, _)| *session).collect();
        for session in &renewed {
            self.asked_to_move(*session, now);
        }
        renewed
    }

    /// Marks sessions with that server as replaced.
    fn replace(&mut self, server: &ServerAddr, server_id: &str) -> Vec<SessionId> {
        let mut replaced = Vec::new();
        let mut elsewhere = Vec::new();
        for (session, held) in &mut self.sessions {
            if held.server_id == server_id && held.state != EntryState::Leaving {
                held.state = EntryState::Leaving;
                replaced.push(*session);
                elsewhere.push(held.server.clone());
            }
        }
        for other in elsewhere.iter().filter(|other| *other != server) {
            if !self.has_session(other)
                && let Some(address) = self.address(other)
            {
                address.leads_to = Some(server_id.to_owned());
            }
        }
        replaced
    }

    fn dial(&mut self, index: usize, purpose: Purpose) -> ServerAddr {
        self.dials += 1;
        let address = &mut self.addresses[index];
        address.dialling = Some(purpose);
        address.last_dial = self.dials;
        address.server.clone()
    }

    /// The dial is over; what it was for.
    fn answered(&mut self, server: &ServerAddr) -> Option<Purpose> {
        self.address(server)?.dialling.take()
    }

    /// Whom to dial for a server that is missing: one at a time, the others in turn. An address
    /// that needs a session anyway is not waited for here.
    fn searched_next(&self) -> Option<usize> {
        let searching = |address: &Address| address.dialling == Some(Purpose::Discovery);
        if self.addresses.iter().any(searching) {
            return None;
        }
        let candidates = self
            .addresses
            .iter()
            .enumerate()
            .filter(|(_, address)| address.dialling.is_none() && !self.needs_session(address));
        let next = candidates.min_by_key(|(_, address)| address.last_dial);
        next.map(|(index, _)| index)
    }

    /// Sessions that do not count are not needed once all servers have one that does.
    fn let_unlisted_go(&mut self) -> Vec<SessionId> {
        if self.staying().next().is_none() {
            return Vec::new();
        }
        let mut gone = Vec::new();
        for (session, held) in &mut self.sessions {
            if held.state == EntryState::Unlisted {
                held.state = EntryState::Leaving;
                gone.push(*session);
            }
        }
        gone
    }

    fn needs_session(&self, address: &Address) -> bool {
        let held = |id: &String| self.staying().any(|held| held.server_id == *id);
        !self.has_session(&address.server) && !address.leads_to.as_ref().is_some_and(held)
    }

    fn has_session(&self, server: &ServerAddr) -> bool {
        self.staying().any(|held| held.server == *server)
    }

    fn is_missing_some(&self) -> bool {
        let wanted = self
            .most
            .map_or(u32::MAX, NonZeroU32::get)
            .min(self.count());
        self.held() < wanted as usize
    }

    /// How many servers have a session that counts.
    fn held(&self) -> usize {
        let held: BTreeSet<_> = self.staying().map(|held| &held.server_id).collect();
        held.len()
    }

    /// How many servers there are: the most that one of them says, since the others may not have
    /// heard yet of one that is new.
    pub(super) fn count(&self) -> u32 {
        self.staying().map(|held| held.count).max().unwrap_or(1)
    }

    fn staying(&self) -> impl Iterator<Item = &SessionEntry> {
        let sessions = self.sessions.values();
        sessions.filter(|held| held.state == EntryState::Staying)
    }

    fn address(&mut self, server: &ServerAddr) -> Option<&mut Address> {
        let mut addresses = self.addresses.iter_mut();
        addresses.find(|address| address.server == *server)
    }
}

#[cfg(test)]
mod tests;
