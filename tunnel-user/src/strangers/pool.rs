//! A bounded number of places that are shared fairly.
//!
//! A newcomer to a full pool gets the place of the holder with the most places that are waiting for
//! their peer: the oldest of these. Among holders with equally many one is drawn, so that somebody
//! with thousands of addresses cannot tell which of them goes. A place whose peer waits for *us* is
//! never taken: on a busy machine that would undo work that is all but done.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
};

/// Which place of a pool.
pub(super) type PlaceId = u64;

/// Who has to act before a place gets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// This program, which may be busy.
    Ours,
    /// The other end of the connection.
    Peers,
}

/// Places, each of a holder. A holder may have many.
#[derive(Debug)]
pub(super) struct FairPool<K> {
    most: usize,
    next: PlaceId,
    places: HashMap<PlaceId, Place<K>>,
    /// What may be taken, by holder.
    waiting: HashMap<K, Waiting>,
    /// The holders of these, by how many they have, then by a random number.
    ranks: BTreeMap<(usize, u64), K>,
}

#[derive(Debug)]
struct Place<K> {
    holder: K,
    turn: Turn,
    /// The peer has acted while its place was still being looked at.
    acted: bool,
}

#[derive(Debug)]
struct Waiting {
    rank: u64,
    places: BTreeSet<PlaceId>,
}

impl<K: Clone + Eq + Hash + Ord> FairPool<K> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            next: 0,
            places: HashMap::new(),
            waiting: HashMap::new(),
            ranks: BTreeMap::new(),
        }
    }

    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Whether somebody can come without more than `most` being here.
    pub(super) fn has_room(&self) -> bool {
        self.places.len() < self.most || !self.ranks.is_empty()
    }

    /// A newcomer's place, and whose place it took. `draw` is a random number.
    pub(super) fn enter(&mut self, holder: K, turn: Turn, draw: u64) -> (PlaceId, Option<PlaceId>) {
        let taken = (self.places.len() >= self.most)
            .then(|| self.next_to_go(draw))
            .flatten();
        if let Some(taken) = taken {
            self.leave(taken);
        }
        let id = self.next;
        self.next += 1;
        let place = Place {
            holder,
            turn: Turn::Ours,
            acted: false,
        };
        self.places.insert(id, place);
        if turn == Turn::Peers {
            self.set_turn(id, turn, draw);
        }
        (id, taken)
    }

    /// We look at what the peer has sent.
    pub(super) fn begin(&mut self, id: PlaceId) {
        self.set_turn(id, Turn::Ours, 0);
        if let Some(place) = self.places.get_mut(&id) {
            place.acted = false;
        }
    }

    /// The peer has acted: it is our turn, whenever we come to it.
    pub(super) fn acted(&mut self, id: PlaceId) {
        self.set_turn(id, Turn::Ours, 0);
        if let Some(place) = self.places.get_mut(&id) {
            place.acted = true;
        }
    }

    /// We have looked, and wait for more; whether that makes room for somebody.
    pub(super) fn end(&mut self, id: PlaceId, draw: u64) -> bool {
        let waits = self.places.get(&id).is_some_and(|place| !place.acted);
        if waits {
            self.set_turn(id, Turn::Peers, draw);
        }
        waits
    }

    /// Gives a place up, if it is still there.
    pub(super) fn leave(&mut self, id: PlaceId) -> bool {
        self.set_turn(id, Turn::Ours, 0);
        self.places.remove(&id).is_some()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    fn next_to_go(&self, draw: u64) -> Option<PlaceId> {
        let (&(most, _), _) = self.ranks.last_key_value()?;
        // Among equals the numbers are random, so the next one above another random number is a fair
        // choice, and no walk through thousands.
        let mut above = self.ranks.range((most, draw)..);
        let mut any = self.ranks.range((most, 0)..);
        let (_, holder) = above.next().or_else(|| any.next())?;
        self.waiting.get(holder)?.places.first().copied()
    }

    fn set_turn(&mut self, id: PlaceId, turn: Turn, draw: u64) {
        let Some(place) = self.places.get_mut(&id) else {
            return;
        };
        if std::mem::replace(&mut place.turn, turn) == turn {
            return;
        }
        let holder = place.holder.clone();
        let mut waiting = self.waiting.remove(&holder).unwrap_or(Waiting {
            rank: draw,
            places: BTreeSet::new(),
        });
        self.ranks.remove(&(waiting.places.len(), waiting.rank));
        match turn {
            Turn::Peers => waiting.places.insert(id),
            Turn::Ours => waiting.places.remove(&id),
        };
        let count = waiting.places.len();
        if count == 0 {
            return;
        }
        while self.ranks.contains_key(&(count, waiting.rank)) {
            waiting.rank = waiting.rank.wrapping_add(1);
        }
        self.ranks.insert((count, waiting.rank), holder.clone());
        self.waiting.insert(holder, waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool whose members all wait for their peers.
    fn pool(most: usize, holders: &[&'static str]) -> FairPool<&'static str> {
        let mut pool = FairPool::new(most);
        for (n, holder) in (1..).zip(holders) {
            assert_eq!(pool.enter(*holder, Turn::Peers, n << 60).1, None);
        }
        pool
    }

    #[test]
    fn the_oldest_of_whoever_holds_most_makes_room() {
        let mut pool = pool(4, &["agent", "crowd", "crowd", "crowd"]);
        let (_, taken) = pool.enter("other", Turn::Peers, 0);
        assert_eq!(taken, Some(1));
        // However many the crowd sends, it takes its own places only.
        for n in 0..1000 {
            let (_, taken) = pool.enter("crowd", Turn::Peers, n);
            assert_ne!(taken, Some(0), "the agent's");
        }
        assert!(pool.leave(0), "the agent is still there");
        assert_eq!(pool.len(), 3);
    }

    #[test]
    fn among_many_with_one_place_each_chance_decides() {
        let holders = ["a", "b", "c", "d"];
        let taken = |draw| pool(4, &holders).enter("e", Turn::Peers, draw).1;
        // The ranks are 1 to 4 times 2^60.
        assert_eq!(taken(0), Some(0));
        assert_eq!(taken((1 << 60) + 1), Some(1));
        assert_eq!(taken(4 << 60), Some(3));
        assert_eq!(taken(u64::MAX), Some(0), "past the last the first follows");
    }

    #[test]
    fn whoever_waits_for_us_is_left_alone() {
        let mut pool = pool(2, &["a", "a"]);
        pool.acted(0);
        pool.begin(1);
        assert!(!pool.has_room());
        assert_eq!(
            pool.enter("b", Turn::Ours, 0).1,
            None,
            "one too many, rather"
        );
        assert!(pool.end(1, 0) && pool.has_room());
        assert_eq!(pool.enter("b", Turn::Ours, 0).1, Some(1));
    }

    #[test]
    fn who_acts_while_we_look_is_looked_at_again_before_it_is_waited_for() {
        let mut pool = pool(1, &["a"]);
        pool.begin(0);
        pool.acted(0);
        assert!(!pool.end(0, 0) && !pool.has_room());
        pool.begin(0);
        assert!(pool.end(0, 0) && pool.has_room());
    }

    #[test]
    fn who_has_left_leaves_nothing_behind() {
        let mut pool = pool(3, &["a", "b", "b"]);
        assert!(pool.leave(1) && !pool.leave(1));
        pool.acted(1);
        pool.begin(1);
        assert!(!pool.end(1, 0));
        assert!(pool.leave(0) && pool.leave(2));
        assert!(pool.waiting.is_empty() && pool.ranks.is_empty());
        assert_eq!(pool.len(), 0);
    }
}
