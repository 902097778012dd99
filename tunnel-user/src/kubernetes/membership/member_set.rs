//! Which servers are alive: a decision over what was seen of their Leases, and when.
//!
//! Clocks of other machines do not count. A Lease is alive for its life after this machine has seen
//! it change, as in the leader election of client-go
//! (<https://github.com/kubernetes/client-go/blob/v0.34.4/tools/leaderelection/leaderelection.go>).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

/// Why nothing that was not seen counts as gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Uncertainty {
    /// The watch is lost.
    Watch,
    /// This server cannot renew, so others may not either.
    Renewal,
}

/// The servers besides this one, and this one.
#[derive(Debug)]
pub(super) struct MemberSet {
    own: String,
    life: Duration,
    leases: BTreeMap<String, Seen>,
    /// Seen in the list that is under way.
    listing: Option<BTreeSet<String>>,
    uncertainties: BTreeSet<Uncertainty>,
    /// Name and server of each Lease that was alive when last asked.
    alive: BTreeMap<String, MemberServer>,
}

/// The server of a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemberServer {
    pub(super) id: String,
    /// Its agent port, for other servers; `None` where it does not say.
    pub(super) address: Option<String>,
}

#[derive(Debug)]
struct Seen {
    server: MemberServer,
    renewed: i64,
    at: Instant,
}

impl MemberSet {
    /// Nobody but the server of this Lease, which counts whatever is seen of it.
    pub(super) fn new(own: &str, life: Duration) -> Self {
        Self {
            own: own.to_owned(),
            life,
            leases: BTreeMap::new(),
            listing: None,
            uncertainties: BTreeSet::new(),
            alive: BTreeMap::new(),
        }
    }

    pub(super) fn seen(&mut self, name: &str, server: MemberServer, renewed: i64, now: Instant) {
        if let Some(listing) = &mut self.listing {
            listing.insert(name.to_owned());
        }
        let known = self.leases.get(name);
        if known.is_some_and(|known| known.server == server && known.renewed == renewed) {
            return;
        }
        let seen = Seen {
            server,
            renewed,
            at: now,
        };
        self.leases.insert(name.to_owned(), seen);
    }

    pub(super) fn gone(&mut self, name: &str) {
        self.leases.remove(name);
    }

    /// What follows is all there is.
    pub(super) fn begin_list(&mut self) {
        self.listing = Some(BTreeSet::new());
    }

    pub(super) fn end_list(&mut self) {
        if let Some(listing) = self.listing.take() {
            self.leases.retain(|name, _| listing.contains(name));
        }
    }

    /// From now on nobody's silence means anything; whether that is news.
    pub(super) fn suspect(&mut self, suspect: Uncertainty) -> bool {
        self.uncertainties.insert(suspect)
    }

    /// Silence counts again, from now on.
    pub(super) fn trust(&mut self, suspect: Uncertainty, now: Instant) {
        if self.uncertainties.remove(&suspect) {
            for (name, seen) in &mut self.leases {
                if self.alive.contains_key(name) {
                    seen.at = now;
                }
            }
        }
    }

    /// How many servers there are, if they are others than when it was last asked.
    pub(super) fn change(&mut self, now: Instant) -> Option<u32> {
        let others = self.leases.iter().filter(|(name, _)| **name != self.own);
        let alive: BTreeMap<_, _> = others
            .filter(|(name, seen)| {
                let doubtful = !self.uncertainties.is_empty() && self.alive.contains_key(*name);
                doubtful || now < seen.at + self.life
            })
            .map(|(name, seen)| (name.clone(), seen.server.clone()))
            .collect();
        if alive == self.alive {
            return None;
        }
        self.alive = alive;
        let others = u32::try_from(self.alive.len()).unwrap_or(u32::MAX);
        Some(others.saturating_add(1))
    }

    /// The servers besides this one, as of when it was last asked.
    pub(super) fn others(&self) -> impl Iterator<Item = &MemberServer> {
        self.alive.values()
    }

    /// When the next Lease dies if nothing is seen of it.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        if !self.uncertainties.is_empty() {
            return None;
        }
        let alive = self.alive.keys().filter_map(|name| self.leases.get(name));
        alive.map(|seen| seen.at + self.life).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(15);
    const STEP: Duration = Duration::from_secs(5);

    fn server(id: &str) -> MemberServer {
        MemberServer {
            id: id.to_owned(),
            address: None,
        }
    }

    fn member_set() -> (MemberSet, Instant) {
        (MemberSet::new("m1", LIFE), Instant::now())
    }

    #[test]
    fn this_server_counts_and_its_own_lease_not_twice() {
        let (mut member_set, now) = member_set();
        assert_eq!(member_set.change(now), None);
        member_set.seen("m1", server("s-1"), 1, now);
        assert_eq!(member_set.change(now), None);
        member_set.seen("m2", server("s-2"), 1, now);
        assert_eq!(member_set.change(now), Some(2));
        assert_eq!(member_set.change(now), None);
        member_set.gone("m2");
        assert_eq!(member_set.change(now), Some(1));
    }

    #[test]
    fn a_server_is_alive_for_as_long_as_its_lease_is_seen_to_change() {
        let (mut member_set, mut now) = member_set();
        for renewed in 0..5 {
            // The other machine's clock says whatever it says.
            member_set.seen("m2", server("s-2"), renewed, now);
            assert_eq!(member_set.change(now), (renewed == 0).then_some(2));
            now += STEP;
        }
        // Seen again, unchanged: after a list, perhaps.
        member_set.seen("m2", server("s-2"), 4, now);
        assert_eq!(member_set.next_expiry(), Some(now - STEP + LIFE));
        assert_eq!(member_set.change(now - STEP + LIFE), Some(1));
        member_set.seen("m2", server("s-2"), 5, now + LIFE);
        assert_eq!(member_set.change(now + LIFE), Some(2));
    }

    #[test]
    fn a_lease_found_at_the_start_may_be_dead_and_gets_one_life() {
        let (mut member_set, now) = member_set();
        member_set.begin_list();
        member_set.seen("m2", server("s-2"), -7, now);
        member_set.end_list();
        assert_eq!(member_set.change(now), Some(2));
        assert_eq!(member_set.change(now + LIFE), Some(1));
    }

    #[test]
    fn a_server_in_anothers_place_is_news_although_the_number_is_the_same() {
        let (mut member_set, now) = member_set();
        member_set.seen("m2", server("s-2"), 1, now);
        member_set.change(now);
        member_set.seen("m2", server("s-9"), 2, now);
        assert_eq!(member_set.change(now), Some(2));
    }

    #[test]
    fn without_the_api_server_the_last_count_stays() {
        for suspect in [Uncertainty::Watch, Uncertainty::Renewal] {
            let (mut member_set, now) = member_set();
            member_set.seen("m2", server("s-2"), 1, now);
            member_set.change(now);
            assert!(member_set.suspect(suspect) && !member_set.suspect(suspect));
            let later = now + 100 * LIFE;
            assert_eq!(
                (member_set.change(later), member_set.next_expiry()),
                (None, None)
            );
            member_set.trust(suspect, later);
            assert_eq!(
                member_set.change(later + STEP),
                None,
                "it has a life to be renewed in"
            );
            assert_eq!(member_set.change(later + LIFE), Some(1));
        }
    }

    #[test]
    fn whoever_is_not_listed_any_more_is_gone() {
        let (mut member_set, now) = member_set();
        member_set.seen("m2", server("s-2"), 1, now);
        member_set.seen("m3", server("s-3"), 1, now);
        assert_eq!(member_set.change(now), Some(3));
        member_set.begin_list();
        member_set.seen("m3", server("s-3"), 1, now);
        member_set.end_list();
        assert_eq!(member_set.change(now), Some(2));
    }

    #[test]
    fn the_dead_do_not_rise_when_the_api_server_is_back() {
        let (mut member_set, now) = member_set();
        member_set.seen("m2", server("s-2"), 1, now);
        member_set.change(now);
        assert_eq!(member_set.change(now + LIFE), Some(1));
        member_set.suspect(Uncertainty::Watch);
        member_set.trust(Uncertainty::Watch, now + 2 * LIFE);
        assert_eq!(member_set.change(now + 2 * LIFE), None);
    }
}
