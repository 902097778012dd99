//! What the kernel's maps of Services hold, remembered as [`KernelView`](crate::redirect::kernel_view::KernelView) does
//! it for nodes, and for as long.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    net::SocketAddr,
    time::Instant,
};

use tunnel_ebpf::{
    Backend, Endpoint, SERVICE_PORT_WORDS, ServiceEntry, backend_key, service_port_bit,
    service_port_word,
};

use super::{diff::ServiceDiff, table::ServiceTable};
use crate::redirect::kernel_view::TRUSTED_FOR;

/// The maps as they were read or written last.
#[derive(Debug)]
pub(super) struct ServiceView {
    services: BTreeMap<SocketAddr, HeldService>,
    /// Entries that lead nowhere: somebody broke off while he wrote.
    broken_services: Vec<Endpoint>,
    stray_backends: Vec<u64>,
    /// By [`service_port_word`].
    ports: Vec<u64>,
    next_id: u32,
    read_at: Instant,
}

/// One port of a Service.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeldService {
    pub(super) id: u32,
    pub(super) flags: u64,
    /// By their numbers.
    pub(super) backends: Vec<SocketAddr>,
}

impl ServiceView {
    /// What was just read. `next_id` is the least that no Service has had.
    pub(super) fn new(
        services: &[(Endpoint, ServiceEntry)],
        backends: &[(u64, Backend)],
        ports: &[(u32, u64)],
        next_id: u32,
    ) -> Self {
        let ids = services.iter().map(|(_, entry)| entry.id);
        let ids = ids.chain(backends.iter().map(|(key, _)| owner_of(*key)));
        let mut view = Self {
            next_id: next_id.max(ids.max().unwrap_or(0).saturating_add(1)),
            services: BTreeMap::new(),
            broken_services: Vec::new(),
            stray_backends: Vec::new(),
            ports: vec![0; SERVICE_PORT_WORDS],
            read_at: Instant::now(),
        };
        let mut left: HashMap<u64, Backend> = backends.iter().copied().collect();
        for (dialled, entry) in services {
            match HeldService::read(dialled, entry, &mut left) {
                Some(held) => drop(view.services.insert((*dialled).into(), held)),
                None => view.broken_services.push(*dialled),
            }
        }
        view.stray_backends = left.into_keys().collect();
        view.stray_backends.sort_unstable();
        for (word, bits) in ports {
            if let Some(known) = view.ports.get_mut(*word as usize) {
                *known = *bits;
            }
        }
        view
    }

    pub(super) fn next_id(&self) -> u32 {
        self.next_id
    }

    pub(super) fn is_trusted(&self) -> bool {
        self.read_at.elapsed() < TRUSTED_FOR
    }

    /// Becomes this table; says what has to be written for it.
    pub(super) fn update(&mut self, table: &ServiceTable) -> ServiceDiff {
        let mut diff = ServiceDiff {
            remove_services: mem::take(&mut self.broken_services),
            remove_backends: mem::take(&mut self.stray_backends),
            ..ServiceDiff::default()
        };
        self.services.retain(|cluster, held| {
            let stays = table.services.contains_key(cluster);
            if !stays {
                diff.remove(*cluster, held);
            }
            stays
        });
        for (cluster, row) in &table.services {
            if let Some(held) = self.services.get_mut(cluster) {
                diff.change(*cluster, held, row);
            } else {
                let held = diff.add(*cluster, self.next_id, row);
                self.next_id = self.next_id.wrapping_add(1);
                self.services.insert(*cluster, held);
            }
        }
        self.update_ports(table, &mut diff);
        diff
    }

    fn update_ports(&mut self, table: &ServiceTable, diff: &mut ServiceDiff) {
        let mut wanted = vec![0; SERVICE_PORT_WORDS];
        for cluster in table.services.keys() {
            let port = cluster.port();
            wanted[service_port_word(port) as usize] |= service_port_bit(port);
        }
        for ((word, known), wanted) in (0..).zip(&mut self.ports).zip(wanted) {
            let cleared = *known & wanted;
            if cleared != *known {
                diff.clear_ports.push((word, cleared));
            }
            if cleared != wanted {
                diff.set_ports.push((word, wanted));
            }
            *known = wanted;
        }
    }
}

impl HeldService {
    /// Takes its backends from those that are left; `None` if it is not whole.
    fn read(
        dialled: &Endpoint,
        entry: &ServiceEntry,
        left: &mut HashMap<u64, Backend>,
    ) -> Option<Self> {
        if !entry.is_of(dialled) || entry.backends == 0 {
            return None;
        }
        let keys = (0..entry.backends).map(|number| backend_key(entry.id, number));
        let whole = |key: &u64| left.get(key).is_some_and(|backend| backend.is_of(*key));
        if !keys.clone().all(|key| whole(&key)) {
            return None;
        }
        let backends = keys.filter_map(|key| left.remove(&key));
        Some(Self {
            id: entry.id,
            flags: entry.flags,
            backends: backends.map(|backend| backend.endpoint.into()).collect(),
        })
    }
}

fn owner_of(key: u64) -> u32 {
    u32::try_from(key >> 32).unwrap_or(u32::MAX)
}
