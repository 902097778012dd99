//! Places for connections, shared fairly among clients: one alone cannot keep all others from a node.
//!
//! One address may have at most half of the places, and an eighth is kept for the processes of this
//! machine, kube-apiserver among them, whatever pods do.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    net::IpAddr,
};

/// Whose connection it is, as far as its source address tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Client {
    /// A process of this machine, in its own network namespace.
    Machine,
    /// Somebody else: a pod, usually.
    Address(IpAddr),
}

/// Which places are taken, and by whom.
#[derive(Debug)]
pub(crate) struct Places {
    limit: u32,
    by_machine: u32,
    by_others: u32,
    by_address: HashMap<IpAddr, u32>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// As many are taken as there are for clients like this one.
    Full(u32),
    /// This address has as many as one may have.
    ClientFull(u32),
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => f.write_str("this machine"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl Places {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit,
            by_machine: 0,
            by_others: 0,
            by_address: HashMap::new(),
        }
    }

    pub(crate) fn taken(&self) -> u32 {
        self.by_machine + self.by_others
    }

    /// Takes a place; whoever has one gives it back with [`Self::leave`].
    pub(crate) fn take(&mut self, client: Client) -> Result<(), NoPlace> {
        if self.taken() >= self.limit {
            return Err(NoPlace::Full(self.limit));
        }
        match client {
            Client::Machine => self.by_machine += 1,
            Client::Address(address) => self.take_for(address)?,
        }
        Ok(())
    }

    pub(crate) fn leave(&mut self, client: Client) {
        match client {
            Client::Machine => self.by_machine -= 1,
            Client::Address(address) => {
                self.by_others -= 1;
                if let Entry::Occupied(mut has) = self.by_address.entry(address) {
                    *has.get_mut() -= 1;
                    if *has.get() == 0 {
                        has.remove();
                    }
                }
            }
        }
    }

    fn take_for(&mut self, address: IpAddr) -> Result<(), NoPlace> {
        let for_others = self.limit - self.limit / 8;
        if self.by_others >= for_others {
            return Err(NoPlace::Full(for_others));
        }
        let for_one = (self.limit / 2).max(1);
        let has = self.by_address.entry(address).or_default();
        if *has >= for_one {
            return Err(NoPlace::ClientFull(for_one));
        }
        *has += 1;
        self.by_others += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(last: u8) -> Client {
        Client::Address(IpAddr::from([10, 244, 0, last]))
    }

    /// How many places the client gets until it is refused, and how.
    fn fill(places: &mut Places, client: Client) -> (u32, NoPlace) {
        let mut got = 0;
        loop {
            match places.take(client) {
                Ok(()) => got += 1,
                Err(refused) => return (got, refused),
            }
        }
    }

    #[test]
    fn one_client_gets_half_all_of_them_leave_an_eighth_to_the_machine() {
        let mut places = Places::new(80);
        assert_eq!(fill(&mut places, pod(1)), (40, NoPlace::ClientFull(40)));
        assert_eq!(fill(&mut places, pod(2)), (30, NoPlace::Full(70)));
        assert_eq!(fill(&mut places, pod(3)), (0, NoPlace::Full(70)));
        assert_eq!(fill(&mut places, Client::Machine), (10, NoPlace::Full(80)));
        assert_eq!(places.taken(), 80);
    }

    #[test]
    fn the_machine_may_have_all() {
        let mut places = Places::new(80);
        assert_eq!(fill(&mut places, Client::Machine), (80, NoPlace::Full(80)));
        assert_eq!(fill(&mut places, pod(1)), (0, NoPlace::Full(80)));
    }

    #[test]
    fn a_place_given_back_is_the_next_ones_and_nothing_is_kept_of_who_left() {
        let mut places = Places::new(8);
        assert_eq!(fill(&mut places, pod(1)).0, 4);
        assert_eq!(fill(&mut places, pod(2)).0, 3);
        places.leave(pod(1));
        assert_eq!(places.take(pod(3)), Ok(()));
        for _ in 0..3 {
            places.leave(pod(1));
            places.leave(pod(2));
        }
        places.leave(pod(3));
        assert!(places.taken() == 0 && places.by_address.is_empty());
    }

    #[test]
    fn a_single_place_is_for_whoever_comes() {
        let mut places = Places::new(1);
        assert_eq!(places.take(pod(1)), Ok(()));
        assert_eq!(places.take(Client::Machine), Err(NoPlace::Full(1)));
    }
}
