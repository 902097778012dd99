//! Which slot of the ranges stands for which address: a plain computation over what the kernel holds.
//!
//! An address keeps its slot for as long as it is captured, over restarts and upgrades, for the slots
//! are pinned with the tables. One that is given up is not given to another address before a connect
//! that left for the former one must have ended.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use tunnel_ebpf::{Address, MAX_NODES, SlotEntry};

/// How long a slot that was given up stays with its address. A SYN is repeated for at most 127 seconds
/// with the kernel's defaults (`tcp_syn_retries`).
const QUARANTINE: Duration = Duration::from_mins(10);

/// The slots in use and those in quarantine.
#[derive(Debug, Default)]
pub(super) struct Slots {
    by_address: HashMap<Address, u32>,
    /// Those given up, the one that was given up longest ago first.
    retired: BTreeSet<(u64, u32)>,
    /// The same, by slot.
    retired_at: HashMap<u32, (u64, Address)>,
    /// No slot from here on was ever used.
    unused_from: u32,
    now: u64,
    writes: Vec<(u32, SlotEntry)>,
}

impl Slots {
    /// What the kernel holds; `now` in nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) fn new(entries: Vec<(u32, SlotEntry)>, now: u64) -> Self {
        let mut slots = Self {
            unused_from: 1,
            now,
            ..Self::default()
        };
        for (slot, entry) in entries {
            slots.by_address.insert(entry.address, slot);
            slots.unused_from = slots.unused_from.max(slot + 1);
            if entry.retired_at != 0 {
                slots.retired.insert((entry.retired_at, slot));
                slots
                    .retired_at
                    .insert(slot, (entry.retired_at, entry.address));
            }
        }
        slots
    }

    /// The slot of an address that is captured; 0 if all are taken.
    pub(super) fn assign(&mut self, address: Address) -> u32 {
        if let Some(slot) = self.by_address.get(&address).copied() {
            if let Some((retired_at, _)) = self.retired_at.remove(&slot) {
                self.retired.remove(&(retired_at, slot));
                self.write(slot, address, 0);
            }
            return slot;
        }
        let Some(slot) = self.never_used().or_else(|| self.long_given_up()) else {
            return 0;
        };
        self.by_address.insert(address, slot);
        self.write(slot, address, 0);
        slot
    }

    /// Gives up the slots of all addresses but these.
    pub(super) fn keep_only(&mut self, is_captured: impl Fn(&Address) -> bool) {
        let addresses = self.by_address.keys();
        let others: Vec<_> = addresses
            .filter(|address| !is_captured(address))
            .copied()
            .collect();
        for address in others {
            self.give_up(address);
        }
    }

    /// Gives up the slot of an address that is captured no longer, if it has one.
    pub(super) fn give_up(&mut self, address: Address) {
        let Some(slot) = self.by_address.get(&address).copied() else {
            return;
        };
        if self.retired_at.contains_key(&slot) {
            return;
        }
        self.retired.insert((self.now, slot));
        self.retired_at.insert(slot, (self.now, address));
        self.write(slot, address, self.now);
    }

    /// The present moment, as for [`Self::new`].
    pub(super) fn set_now(&mut self, now: u64) {
        self.now = now;
    }

    /// What has changed since the kernel was read.
    pub(super) fn take_writes(&mut self) -> Vec<(u32, SlotEntry)> {
        std::mem::take(&mut self.writes)
    }

    fn never_used(&mut self) -> Option<u32> {
        let slot = self.unused_from;
        ((slot as usize) < MAX_NODES).then(|| {
            self.unused_from += 1;
            slot
        })
    }

    fn long_given_up(&mut self) -> Option<u32> {
        let (retired_at, slot) = *self.retired.first()?;
        let quarantine = u64::try_from(QUARANTINE.as_nanos()).unwrap_or(u64::MAX);
        if self.now.saturating_sub(retired_at) < quarantine {
            return None;
        }
        self.retired.pop_first();
        let (_, former) = self.retired_at.remove(&slot)?;
        self.by_address.remove(&former);
        Some(slot)
    }

    fn write(&mut self, slot: u32, address: Address, retired_at: u64) {
        self.writes.push((
            slot,
            SlotEntry {
                address,
                retired_at,
            },
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        net::{IpAddr, Ipv4Addr},
    };

    use super::*;

    const START: u64 = 1_000_000_000;
    const MINUTE: u64 = 60_000_000_000;

    fn address(number: u32) -> Address {
        IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + number)).into()
    }

    /// The kernel's map after these writes.
    fn apply(kernel: Vec<(u32, SlotEntry)>, slots: &mut Slots) -> Vec<(u32, SlotEntry)> {
        let mut kernel: BTreeMap<_, _> = kernel.into_iter().collect();
        kernel.extend(slots.take_writes());
        kernel.into_iter().collect()
    }

    #[test]
    fn an_address_keeps_its_slot_over_restarts() {
        let mut first = Slots::new(Vec::new(), START);
        let (a, b) = (first.assign(address(1)), first.assign(address(2)));
        assert_eq!((a, b), (1, 2));
        let kernel = apply(Vec::new(), &mut first);

        let mut second = Slots::new(kernel, START);
        assert_eq!(second.assign(address(2)), b);
        assert_eq!(second.assign(address(1)), a);
        assert!(second.take_writes().is_empty());
    }

    #[test]
    fn a_slot_that_was_given_up_is_nobody_elses_for_ten_minutes() {
        let mut slots = Slots::new(Vec::new(), START);
        for number in 1..MAX_NODES {
            slots.assign(address(u32::try_from(number).unwrap()));
        }
        assert_eq!(slots.assign(address(0x00ff_0000)), 0, "all are taken");
        slots.keep_only(|captured| *captured != address(7));
        let kernel = apply(Vec::new(), &mut slots);

        let mut soon = Slots::new(kernel.clone(), START + 9 * MINUTE);
        assert_eq!(soon.assign(address(0x00ff_0000)), 0);
        let mut later = Slots::new(kernel, START + 11 * MINUTE);
        assert_eq!(later.assign(address(0x00ff_0000)), 7);
        assert_eq!(later.assign(address(7)), 0, "its slot is another's now");
    }

    #[test]
    fn who_comes_back_gets_its_slot_again() {
        let mut slots = Slots::new(Vec::new(), START);
        let slot = slots.assign(address(1));
        slots.keep_only(|_| false);
        let kernel = apply(Vec::new(), &mut slots);
        assert_eq!(kernel[0].1.retired_at, START);

        let mut slots = Slots::new(kernel, START + MINUTE);
        assert_eq!(slots.assign(address(2)), slot + 1);
        assert_eq!(slots.assign(address(1)), slot);
        let kernel = apply(Vec::new(), &mut slots);
        let entry = kernel.iter().find(|(known, _)| *known == slot);
        assert_eq!(entry.unwrap().1.retired_at, 0);
    }
}
