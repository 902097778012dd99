//! Callers who have not proved who they are: still shaking hands, or without a certificate.
//!
//! Anybody can be one, so their number is bounded, and so is the share of each address: whoever
//! opens connections and says nothing must not keep agents out.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// All strangers together: some hundred KiB each at the most.
const MOST: usize = 1024;
/// Those of one address, which may be a NAT with many agents behind it: what is too many comes
/// again, for agents wait with jitter between attempts.
const MOST_OF_ONE: usize = 256;

/// The strangers of this moment.
#[derive(Clone, Default)]
pub(super) struct Strangers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One stranger's place, until this is dropped.
pub(super) struct Stranger {
    address: IpAddr,
    strangers: Strangers,
}

impl Strangers {
    /// A place for one more, if there is one.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Stranger> {
        let mut present = self.lock();
        let total: usize = present.values().sum();
        let of_one = present.get(&address).copied().unwrap_or(0);
        if total >= MOST || of_one >= MOST_OF_ONE {
            return None;
        }
        present.insert(address, of_one + 1);
        drop(present);
        Some(Stranger {
            address,
            strangers: self.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // The map is whole between any two of its operations, whatever panicked meanwhile.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut present = self.strangers.lock();
        if let Some(count) = present.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                present.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn one_address_cannot_take_every_place() {
        let strangers = Strangers::default();
        let mut of_one: Vec<_> = (0..MOST_OF_ONE)
            .map(|_| strangers.admit(address(1)))
            .collect();
        assert!(of_one.iter().all(Option::is_some));
        assert!(strangers.admit(address(1)).is_none());
        assert!(strangers.admit(address(2)).is_some());
        of_one.pop();
        assert!(strangers.admit(address(1)).is_some());
    }

    #[test]
    fn all_together_are_bounded_and_leave_nothing_behind() {
        let strangers = Strangers::default();
        let all: Vec<_> = (0..=u8::MAX)
            .flat_map(|last| (0..8).map(move |_| last))
            .map_while(|last| strangers.admit(address(last)))
            .collect();
        assert_eq!(all.len(), MOST);
        drop(all);
        assert!(strangers.lock().is_empty());
    }
}
