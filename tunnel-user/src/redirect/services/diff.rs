//! What must be written so that exactly a table of Services is caught: a plain computation.
//!
//! A backend keeps its number for as long as it is one, but for the last ones, which take the numbers of those that
//! went: the change of one endpoint is one write or three, whatever the Service's size.

use std::{
    collections::{BTreeSet, HashSet},
    net::SocketAddr,
};

use tunnel_ebpf::{Backend, Endpoint, ServiceEntry, backend_key};

use super::{table::ServiceRow, view::HeldService};

/// The writes, in the order of the fields.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ServiceDiff {
    /// Ports that no Service has any more.
    pub(super) clear_ports: Vec<(u32, u64)>,
    pub(super) remove_services: Vec<Endpoint>,
    /// Numbers that lead to others from now on.
    pub(super) replace_backends: Vec<(u64, Backend)>,
    /// Services that have fewer backends, or as many.
    pub(super) shrink_services: Vec<(Endpoint, ServiceEntry)>,
    pub(super) remove_backends: Vec<u64>,
    pub(super) add_backends: Vec<(u64, Backend)>,
    /// Services that have more backends than before, or any.
    pub(super) grow_services: Vec<(Endpoint, ServiceEntry)>,
    pub(super) set_ports: Vec<(u32, u64)>,
    pub(super) changes: ServiceChanges,
}

/// What a table of Services changed in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceChanges {
    /// Services' ports that are caught now and were not before.
    pub services_added: usize,
    /// Those with other backends than before, or another affinity or policy.
    pub services_changed: usize,
    /// Those that are no longer caught.
    pub services_removed: usize,
    /// Backends that were written.
    pub backends_written: usize,
}

impl ServiceChanges {
    /// Whether the kernel held the table already.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl ServiceDiff {
    /// A Service that is not there yet.
    pub(super) fn add(&mut self, cluster: SocketAddr, id: u32, row: &ServiceRow) -> HeldService {
        let held = HeldService {
            id,
            flags: row.flags,
            backends: row.backends.clone(),
        };
        for number in 0..held.backends.len() {
            self.add_backends.push(held.backend(number));
        }
        self.grow_services.push(held.entry(cluster));
        self.changes.services_added += 1;
        self.changes.backends_written += held.backends.len();
        held
    }

    /// A Service that is there, perhaps with others behind it.
    pub(super) fn change(&mut self, cluster: SocketAddr, held: &mut HeldService, row: &ServiceRow) {
        let before = held.backends.len();
        let replaced = held.lead_to(&row.backends);
        let after = held.backends.len();
        let other_flags = std::mem::replace(&mut held.flags, row.flags) != row.flags;
        if replaced.is_empty() && before == after && !other_flags {
            return;
        }
        for number in replaced {
            self.replace_backends.push(held.backend(number));
            self.changes.backends_written += 1;
        }
        for number in before..after {
            self.add_backends.push(held.backend(number));
            self.changes.backends_written += 1;
        }
        if after > before {
            self.grow_services.push(held.entry(cluster));
        } else if after < before || other_flags {
            self.shrink_services.push(held.entry(cluster));
        }
        self.remove_backends.extend(held.keys(after..before));
        self.changes.services_changed += 1;
    }

    /// A Service that goes.
    pub(super) fn remove(&mut self, cluster: SocketAddr, held: &HeldService) {
        self.remove_services.push(cluster.into());
        self.remove_backends
            .extend(held.keys(0..held.backends.len()));
        self.changes.services_removed += 1;
    }
}

impl HeldService {
    /// Takes these as its backends. Returns the numbers that lead to others than before, of those that there were.
    fn lead_to(&mut self, wanted: &[SocketAddr]) -> BTreeSet<usize> {
        let mut come: HashSet<SocketAddr> = wanted.iter().copied().collect();
        let numbers = self.backends.iter().enumerate();
        let mut free: Vec<usize> = numbers
            .filter_map(|(number, backend)| (!come.remove(backend)).then_some(number))
            .collect();
        let mut replaced = BTreeSet::new();
        for backend in wanted.iter().filter(|backend| come.contains(*backend)) {
            if let Some(number) = free.pop() {
                self.backends[number] = *backend;
                replaced.insert(number);
            } else {
                self.backends.push(*backend);
            }
        }
        // The highest first, so that the last backend is never one that goes itself.
        for number in free.into_iter().rev() {
            self.backends.swap_remove(number);
            replaced.insert(number);
        }
        replaced.split_off(&self.backends.len());
        replaced
    }

    pub(super) fn entry(&self, cluster: SocketAddr) -> (Endpoint, ServiceEntry) {
        let dialled = cluster.into();
        let backends = number_of(self.backends.len());
        (
            dialled,
            ServiceEntry::new(&dialled, self.id, backends, self.flags),
        )
    }

    fn backend(&self, number: usize) -> (u64, Backend) {
        let key = backend_key(self.id, number_of(number));
        (key, Backend::new(key, self.backends[number].into()))
    }

    fn keys(&self, numbers: std::ops::Range<usize>) -> impl Iterator<Item = u64> {
        let id = self.id;
        numbers.map(move |number| backend_key(id, number_of(number)))
    }
}

/// There are at most as many as a map holds.
fn number_of(backend: usize) -> u32 {
    u32::try_from(backend).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
