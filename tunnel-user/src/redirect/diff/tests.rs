use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use tunnel_ebpf::node_mode;

use super::{super::slots::Slots, *};

type Kernel = (BTreeMap<[u8; 16], NodeEntry>, BTreeMap<u16, PortRule>);

fn address(last: u8) -> [u8; 16] {
    let mut octets = [0; 16];
    octets[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, last]);
    octets
}

fn table(nodes: &[(u8, &[u16])], ports: &[u16]) -> Table {
    let row = |extra: &[u16]| Row {
        node_mode: node_mode::CAPTURE,
        closed_gate: 0,
        extra_ports: extra.to_vec(),
    };
    let mut table = Table::default();
    table.ports.extend(ports);
    for (last, extra) in nodes {
        let octets = address(*last);
        table.set(Address { octets }.into(), Some(row(extra)));
    }
    table
}

/// What the programs would redirect.
fn captured(kernel: &Kernel) -> BTreeSet<(u8, u16)> {
    let (nodes, ports) = kernel;
    nodes
        .iter()
        .flat_map(|(octets, node)| {
            ports
                .iter()
                .filter(|(_, rule)| rule.groups & node.groups != 0)
                .map(|(port, _)| (octets[15], *port))
        })
        .collect()
}

/// Writes a table into the kernel, one entry at a time, with `check` after each.
fn write(
    kernel: &mut Kernel,
    table: &Table,
    own: Option<u16>,
    mut check: impl FnMut(&Kernel),
) -> Diff {
    let nodes = kernel
        .0
        .iter()
        .map(|(octets, n)| (Address { octets: *octets }, *n));
    let ports = kernel.1.iter().map(|(port, rule)| (*port, *rule));
    let slots = nodes.clone().map(|(address, entry)| {
        let retired_at = 0;
        (
            entry.slot,
            SlotEntry {
                address,
                retired_at,
            },
        )
    });
    let slots = Slots::new(slots.collect(), 1);
    let mut view = KernelView::new(nodes.collect(), ports.collect(), slots);
    let diff = diff(table, own, &mut view);
    for (address, entry) in &diff.set_nodes {
        kernel.0.insert(address.octets, *entry);
        check(kernel);
    }
    for (port, rule) in &diff.set_ports {
        kernel.1.insert(*port, *rule);
        check(kernel);
    }
    for port in &diff.remove_ports {
        kernel.1.remove(port);
        check(kernel);
    }
    for (address, entry) in &diff.settle_nodes {
        kernel.0.insert(address.octets, *entry);
        check(kernel);
    }
    for address in &diff.remove_nodes {
        kernel.0.remove(&address.octets);
        check(kernel);
    }
    diff
}

fn expected(table: &Table) -> BTreeSet<(u8, u16)> {
    table
        .nodes
        .iter()
        .flat_map(|(octets, row)| {
            let ports = table.ports.iter().chain(&row.extra_ports);
            ports.map(|port| (octets[15], *port))
        })
        .collect()
}

#[test]
fn the_kernel_captures_exactly_the_table_and_a_second_time_nothing_changes() {
    let mut kernel = Kernel::default();
    let table = table(&[(1, &[]), (2, &[12000]), (3, &[12000, 12001])], &[10250]);
    let first = write(&mut kernel, &table, Some(20250), |_| {});
    assert_eq!(captured(&kernel), expected(&table));
    assert_eq!((first.changes.nodes_added, first.changes.ports_set), (3, 4));
    let second = write(&mut kernel, &table, Some(20250), |_| {});
    assert!(second.changes.is_empty(), "{second:?}");
}

/// What stays in the table is captured all the time, and what is in neither table never is.
#[test]
fn no_step_between_two_tables_drops_or_adds_a_capture() {
    let tables = [
        table(&[(1, &[12000]), (2, &[12001])], &[10250]),
        // A port of one node becomes one of all, and back.
        table(&[(1, &[]), (2, &[12001])], &[10250, 12000]),
        table(&[(1, &[12000]), (2, &[12001])], &[10250]),
        // Ports change hands; a new one takes the place of an old one.
        table(&[(1, &[12001]), (2, &[12000])], &[10250]),
        table(&[(1, &[12002]), (2, &[12000]), (3, &[12002])], &[10255]),
        table(&[(3, &[])], &[10250]),
        table(&[], &[]),
    ];
    let mut kernel = Kernel::default();
    let mut before = BTreeSet::new();
    for table in &tables {
        let after = expected(table);
        let stays: BTreeSet<_> = before.intersection(&after).copied().collect();
        let allowed: BTreeSet<_> = before.union(&after).copied().collect();
        let diff = write(&mut kernel, table, None, |kernel| {
            let now = captured(kernel);
            assert!(now.is_superset(&stays), "dropped {:?}", &stays - &now);
            let added = &now - &allowed;
            // Node and port were both captured, only not with each other: a node of the old table
            // on a port that the new one tunnels for all.
            let unlisted = |(node, port): &(u8, u16)| {
                !allowed.iter().any(|(n, _)| n == node) || !allowed.iter().any(|(_, p)| p == port)
            };
            assert!(!added.iter().any(unlisted), "added {added:?}");
        });
        assert!(!diff.incomplete);
        assert_eq!(captured(&kernel), after);
        before = after;
    }
}

fn own_rule(groups: u64) -> PortRule {
    PortRule {
        kind: port_kind::OWN,
        ..rule(groups, clients::ALL)
    }
}

#[test]
fn the_own_port_is_marked_and_a_former_one_removed() {
    let mut kernel = Kernel::default();
    let table = table(&[(1, &[])], &[10250]);
    write(&mut kernel, &table, Some(20250), |_| {});
    assert_eq!(kernel.1[&20250], own_rule(0));
    write(&mut kernel, &table, Some(20251), |_| {});
    assert_eq!(kernel.1.keys().copied().collect::<Vec<_>>(), [10250, 20251]);
    // A tunnelled port that is also our own stays tunnelled.
    write(&mut kernel, &table, Some(10250), |_| {});
    assert_eq!(kernel.1[&10250], own_rule(groups::EVERY_NODE));
}

#[test]
fn when_every_group_is_taken_a_second_round_finishes() {
    let ports = |first: u16| (first..first + 63).collect::<Vec<_>>();
    let (old, new) = (ports(20000), ports(30000));
    let mut kernel = Kernel::default();
    write(&mut kernel, &table(&[(1, &old)], &[10250]), None, |_| {});
    assert_eq!(captured(&kernel).len(), 64);
    let next = table(&[(1, &new)], &[10250]);
    assert!(write(&mut kernel, &next, None, |_| {}).incomplete);
    assert!(!write(&mut kernel, &next, None, |_| {}).incomplete);
    assert_eq!(captured(&kernel), expected(&next));
}

#[test]
fn a_changed_policy_or_mode_is_one_write() {
    let mut kernel = Kernel::default();
    let mut table = table(&[(1, &[]), (2, &[])], &[10250]);
    write(&mut kernel, &table, None, |_| {});
    table.nodes.get_mut(&address(2)).unwrap().node_mode = node_mode::REFUSE;
    let diff = write(&mut kernel, &table, None, |_| {});
    assert_eq!(diff.set_nodes.len(), 1);
    assert_eq!(diff.changes.nodes_changed, 1);
    assert_eq!(kernel.0[&address(2)].node_mode, node_mode::REFUSE);
}

/// Writes what differs from what is remembered, as `Redirect::apply` does.
fn write_remembered(kernel: &mut Kernel, view: &mut KernelView, table: &Table) -> usize {
    let mut writes = 0;
    loop {
        let diff = diff(table, None, view);
        for (address, entry) in diff.set_nodes.iter().chain(&diff.settle_nodes) {
            kernel.0.insert(address.octets, *entry);
        }
        kernel.1.extend(diff.set_ports.iter().copied());
        kernel.1.retain(|port, _| !diff.remove_ports.contains(port));
        for address in &diff.remove_nodes {
            kernel.0.remove(&address.octets).expect("it was there");
        }
        writes += diff.set_nodes.len() + diff.settle_nodes.len() + diff.remove_nodes.len();
        view.has_written(table, &diff);
        if !diff.incomplete {
            return writes;
        }
    }
}

#[test]
fn with_what_is_remembered_the_kernel_comes_to_hold_the_same() {
    let mut random = SmallRng::seed_from_u64(7);
    let mut kernel = Kernel::default();
    let mut view = KernelView::new(Vec::new(), Vec::new(), Slots::new(Vec::new(), 1));
    for _ in 0..300 {
        let mut nodes: Vec<(u8, Vec<u16>)> = Vec::new();
        for last in 1..30 {
            if random.random_bool(0.7) {
                let extra = (12000..12004).filter(|_| random.random_bool(0.2));
                nodes.push((last, extra.collect()));
            }
        }
        let nodes: Vec<_> = nodes
            .iter()
            .map(|(last, extra)| (*last, extra.as_slice()))
            .collect();
        let table = table(&nodes, &[10250]);
        write_remembered(&mut kernel, &mut view, &table);
        assert_eq!(captured(&kernel), expected(&table));
        assert_eq!(kernel.0.len(), table.nodes.len());
        let mut slots: Vec<_> = kernel.0.values().map(|entry| entry.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), kernel.0.len(), "a slot stands for one node");
    }
}

#[test]
fn the_change_of_one_node_is_one_write() {
    let mut kernel = Kernel::default();
    let mut view = KernelView::new(Vec::new(), Vec::new(), Slots::new(Vec::new(), 1));
    let nodes: Vec<(u8, &[u16])> = (1..200).map(|last| (last, &[][..])).collect();
    let mut table = table(&nodes, &[10250]);
    assert_eq!(write_remembered(&mut kernel, &mut view, &table), 199);
    assert_eq!(write_remembered(&mut kernel, &mut view, &table), 0);
    table.nodes.get_mut(&address(2)).unwrap().node_mode = node_mode::REFUSE;
    assert_eq!(write_remembered(&mut kernel, &mut view, &table), 1);
    table.nodes.remove(&address(3));
    assert_eq!(write_remembered(&mut kernel, &mut view, &table), 1);
    assert_eq!(captured(&kernel), expected(&table));
}
