//! The diff against a kernel of its own: after each single write every program must find what some table had.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
};

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng, seq::SliceRandom as _};
use tunnel_ebpf::{
    Backend, Endpoint, MAX_BACKENDS, ServiceEntry, backend_key, service_port_bit, service_port_word,
};

use super::*;
use crate::{
    model::ServiceName,
    redirect::services::{table::ServiceTable, view::ServiceView},
};

#[derive(Default)]
struct Kernel {
    services: HashMap<Endpoint, ServiceEntry>,
    backends: HashMap<u64, Backend>,
    ports: BTreeMap<u32, u64>,
    writes: usize,
}

impl Kernel {
    /// As `ServiceMaps` writes it; looks at everything after each step.
    fn write(&mut self, diff: &ServiceDiff, check: &dyn Fn(&Self)) {
        for (word, bits) in &diff.clear_ports {
            self.ports.insert(*word, *bits);
            self.written(check);
        }
        for dialled in &diff.remove_services {
            self.services.remove(dialled);
            self.written(check);
        }
        for (key, backend) in &diff.replace_backends {
            assert!(self.backends.insert(*key, *backend).is_some(), "replaced");
            self.written(check);
        }
        for (dialled, entry) in &diff.shrink_services {
            self.services.insert(*dialled, *entry);
            self.written(check);
        }
        for key in &diff.remove_backends {
            assert!(self.backends.remove(key).is_some(), "was there");
            self.written(check);
        }
        for (key, backend) in &diff.add_backends {
            assert!(self.backends.insert(*key, *backend).is_none(), "is new");
            assert!(self.backends.len() <= MAX_BACKENDS, "fits");
            self.written(check);
        }
        for (dialled, entry) in &diff.grow_services {
            self.services.insert(*dialled, *entry);
            self.written(check);
        }
        for (word, bits) in &diff.set_ports {
            self.ports.insert(*word, *bits);
            self.written(check);
        }
    }

    fn written(&mut self, check: &dyn Fn(&Self)) {
        self.writes += 1;
        check(self);
    }

    /// Where connects to it may lead now; `None` if it is not caught.
    fn leads_to(&self, cluster: SocketAddr) -> Option<BTreeSet<SocketAddr>> {
        let bits = self.ports.get(&service_port_word(cluster.port()));
        if bits.copied().unwrap_or(0) & service_port_bit(cluster.port()) == 0 {
            return None;
        }
        let dialled = cluster.into();
        let entry = self.services.get(&dialled)?;
        assert!(entry.is_of(&dialled));
        let backends = (0..entry.backends).map(|number| {
            let key = backend_key(entry.id, number);
            let backend = self.backends.get(&key).expect("every number has a backend");
            assert!(backend.is_of(key));
            backend.endpoint.into()
        });
        Some(backends.collect())
    }

    fn view(&self) -> ServiceView {
        let services: Vec<_> = self.services.iter().map(|(k, v)| (*k, *v)).collect();
        let backends: Vec<_> = self.backends.iter().map(|(k, v)| (*k, *v)).collect();
        let ports: Vec<_> = self.ports.iter().map(|(k, v)| (*k, *v)).collect();
        ServiceView::new(&services, &backends, &ports, 0)
    }
}

fn at(host: u32, port: u16) -> SocketAddr {
    let ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + host);
    SocketAddr::new(ip.into(), port)
}

fn table(services: &[(SocketAddr, Vec<SocketAddr>)]) -> ServiceTable {
    let row = |backends: &Vec<SocketAddr>| {
        ServiceRow::for_tests(ServiceName::new("default", "service"), backends.clone())
    };
    let services = services.iter().map(|(cluster, all)| (*cluster, row(all)));
    ServiceTable {
        services: services.collect(),
    }
}

/// What may be found while one table becomes another.
fn check(old: &ServiceTable, new: &ServiceTable, clusters: &[SocketAddr], kernel: &Kernel) {
    let of = |table: &ServiceTable, cluster: &SocketAddr| {
        let row = table.services.get(cluster)?;
        Some(row.backends.iter().copied().collect::<BTreeSet<_>>())
    };
    for cluster in clusters {
        let (before, after) = (of(old, cluster), of(new, cluster));
        match kernel.leads_to(*cluster) {
            None => assert!(
                before.is_none() || after.is_none(),
                "{cluster} is not caught"
            ),
            Some(found) => {
                let known = before.into_iter().chain(after).flatten().collect();
                assert!(
                    found.is_subset(&known),
                    "{cluster} leads elsewhere: {found:?}"
                );
                assert!(!found.is_empty());
            }
        }
    }
}

#[test]
fn whatever_changes_no_step_of_it_leads_astray_or_leaves_a_service_out() {
    let mut random = SmallRng::seed_from_u64(7);
    let clusters: Vec<_> = (0..6)
        .map(|i| at(0x60_0000 + i, [443, 80][i as usize % 2]))
        .collect();
    let (mut kernel, mut old) = (Kernel::default(), ServiceTable::default());
    let mut view = kernel.view();
    for round in 0..600 {
        let mut services = Vec::new();
        for (number, cluster) in (0..).zip(&clusters) {
            if random.random_bool(0.7) {
                let mut all: Vec<_> = (0..9).map(|i| at(number * 100 + i, 10250)).collect();
                all.shuffle(&mut random);
                all.truncate(random.random_range(1..=9));
                all.sort();
                services.push((*cluster, all));
            }
        }
        let new = table(&services);
        if round % 7 == 0 {
            view = kernel.view();
        }
        let diff = view.update(&new);
        kernel.write(&diff, &|kernel| check(&old, &new, &clusters, kernel));
        for (cluster, backends) in &services {
            let found = kernel.leads_to(*cluster).unwrap();
            assert_eq!(found, backends.iter().copied().collect());
        }
        let all: usize = services.iter().map(|(_, backends)| backends.len()).sum();
        assert_eq!(
            (kernel.services.len(), kernel.backends.len()),
            (services.len(), all)
        );
        assert!(view.update(&new).changes.is_empty(), "it is there already");
        old = new;
    }
}

#[test]
fn the_change_of_one_endpoint_among_thousands_costs_what_it_changes() {
    let cluster = at(0x60_0000, 443);
    let mut all: Vec<_> = (0..10_000).map(|i| at(i, 10250)).collect();
    let (mut kernel, mut view) = (Kernel::default(), Kernel::default().view());
    let of = |all: &[SocketAddr]| table(&[(cluster, all.to_vec())]);
    kernel.write(&view.update(&of(&all)), &|_| {});
    let writes = |kernel: &mut Kernel, view: &mut ServiceView, all: &[SocketAddr]| {
        let before = kernel.writes;
        kernel.write(&view.update(&of(all)), &|_| {});
        kernel.writes - before
    };
    let gone = all.remove(5_000);
    assert_eq!(writes(&mut kernel, &mut view, &all), 3);
    all.insert(5_000, gone);
    assert_eq!(writes(&mut kernel, &mut view, &all), 2);
    all[70] = at(20_000, 10250);
    assert_eq!(writes(&mut kernel, &mut view, &all), 1);
}

#[test]
fn a_full_map_has_room_for_what_takes_the_place_of_something_else() {
    let wide = |first: u32| {
        (0..65_536)
            .map(|i| at(first + i, 10250))
            .collect::<Vec<_>>()
    };
    let (one, other) = (at(0x60_0000, 443), at(0x60_0001, 443));
    let (mut kernel, mut view) = (Kernel::default(), Kernel::default().view());
    for table in [
        table(&[(one, wide(0))]),
        table(&[(other, wide(0))]),
        table(&[(other, wide(100_000))]),
        table(&[(one, vec![at(1, 1)]), (other, wide(0)[1..].to_vec())]),
    ] {
        // The writes themselves look at the map's size.
        kernel.write(&view.update(&table), &|_| {});
    }
    assert_eq!(kernel.backends.len(), MAX_BACKENDS);
}

#[test]
fn what_somebody_left_half_written_is_removed_or_written_anew() {
    let (one, other) = (at(0x60_0000, 443), at(0x60_0001, 443));
    let both = table(&[
        (one, vec![at(1, 10250), at(2, 10250)]),
        (other, vec![at(3, 10250)]),
    ]);
    for broken in ["backend", "service", "seal", "stray"] {
        let mut kernel = Kernel::default();
        let mut view = kernel.view();
        kernel.write(&view.update(&both), &|_| {});
        match broken {
            "backend" => drop(kernel.backends.remove(&backend_key(1, 1))),
            "service" => drop(kernel.services.remove(&one.into())),
            "seal" => {
                let other = ServiceEntry::new(&other.into(), 1, 2, 0);
                kernel.services.insert(one.into(), other);
            }
            _ => {
                let key = backend_key(40, 0);
                kernel
                    .backends
                    .insert(key, Backend::new(key, at(9, 9).into()));
            }
        }
        let mut view = kernel.view();
        kernel.write(&view.update(&both), &|_| {});
        for (cluster, row) in &both.services {
            let found = kernel.leads_to(*cluster).unwrap();
            assert_eq!(found, row.backends.iter().copied().collect(), "{broken}");
        }
        assert_eq!(
            (kernel.services.len(), kernel.backends.len()),
            (2, 3),
            "{broken}"
        );
    }
}
