//! What must be written to the kernel so that it captures exactly a table: a plain computation.
//!
//! A port that only some nodes have is told apart by a bit that the port's rule and those nodes'
//! entries share. A port keeps its bit as long as it is in the kernel, and a bit is given to
//! another port only once no entry carries it; so no connect is captured by accident while the
//! entries are written one by one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tunnel_ebpf::{Address, NodeEntry, PortRule, SlotEntry, clients, groups, port_kind};

use super::{
    kernel_view::KernelView,
    table::{Row, Table},
};

/// The writes, in the order of the fields: inserts come before deletes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Diff {
    /// Slots that stand for new addresses, and those whose addresses go.
    pub(super) set_slots: Vec<(u32, SlotEntry)>,
    /// New and changed entries; changed ones keep the groups that they are about to lose.
    pub(super) set_nodes: Vec<(Address, NodeEntry)>,
    pub(super) set_ports: Vec<(u16, PortRule)>,
    pub(super) remove_ports: Vec<u16>,
    /// Entries that lose groups, now that their ports' rules are right.
    pub(super) settle_nodes: Vec<(Address, NodeEntry)>,
    pub(super) remove_nodes: Vec<Address>,
    pub(super) changes: Changes,
    /// Some ports wait for a group that these writes set free: compare again afterwards.
    pub(super) incomplete: bool,
    /// The group of each port that only some nodes have.
    pub(super) bits: BTreeMap<u16, u64>,
}

/// What a table changed in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Changes {
    /// Addresses that are captured now and were not before.
    pub nodes_added: usize,
    /// Addresses with another policy, mode or other ports than before.
    pub nodes_changed: usize,
    /// Addresses that are no longer captured.
    pub nodes_removed: usize,
    /// Ports that are tunnelled now and were not before, or for other nodes.
    pub ports_set: usize,
    /// Ports that are no longer tunnelled.
    pub ports_removed: usize,
}

impl Changes {
    /// Whether the kernel held the table already.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares the kernel's entries with the table. `own_port` is the redirect's own, if it has one.
pub(super) fn diff(table: &Table, own_port: Option<u16>, kernel: &mut KernelView) -> Diff {
    let special = table.special_ports();
    let bits = assign_bits(&special, &kernel.nodes, &kernel.ports);
    let mut diff = Diff {
        incomplete: bits.len() < special.len(),
        ..Diff::default()
    };
    diff.nodes(table, &bits, kernel);
    diff.ports(table, &bits, own_port, kernel.ports.clone());
    diff.bits = bits;
    diff
}

impl Diff {
    fn nodes(&mut self, table: &Table, bits: &BTreeMap<u16, u64>, kernel: &mut KernelView) {
        let changed = kernel.changed(table, bits);
        let KernelView { nodes, slots, .. } = kernel;
        for address in &changed.gone {
            slots.give_up(*address);
        }
        for (address, row) in changed.rows {
            let wanted = entry(row, bits, slots.assign(address));
            match nodes.get(&address).copied() {
                None => {
                    self.changes.nodes_added += 1;
                    self.set_nodes.push((address, wanted));
                }
                Some(found) if found == wanted => {}
                Some(found) => {
                    self.changes.nodes_changed += 1;
                    let groups = wanted.groups | found.groups;
                    self.set_nodes
                        .push((address, NodeEntry { groups, ..wanted }));
                    if groups != wanted.groups {
                        self.settle_nodes.push((address, wanted));
                    }
                }
            }
        }
        self.changes.nodes_removed = changed.gone.len();
        self.remove_nodes = changed.gone;
        self.set_slots = slots.take_writes();
    }

    fn ports(
        &mut self,
        table: &Table,
        bits: &BTreeMap<u16, u64>,
        own_port: Option<u16>,
        mut current: BTreeMap<u16, PortRule>,
    ) {
        let mut wanted: BTreeMap<u16, PortRule> = bits
            .iter()
            .map(|(port, groups)| (*port, rule(*groups, table.clients_of(*port))))
            .collect();
        for port in &table.ports {
            wanted.insert(*port, rule(groups::EVERY_NODE, table.clients_of(*port)));
        }
        if let Some(port) = own_port {
            let own = wanted.entry(port).or_insert(rule(0, clients::ALL));
            own.kind = port_kind::OWN;
        }
        for (port, rule) in wanted {
            if current.remove(&port) != Some(rule) {
                self.set_ports.push((port, rule));
            }
        }
        self.remove_ports = current.into_keys().collect();
        self.changes.ports_set = self.set_ports.len();
        self.changes.ports_removed = self.remove_ports.len();
    }
}

/// A bit for every port that only some nodes have: the one that it has in the kernel, or one that
/// nothing in the kernel carries.
fn assign_bits(
    special: &BTreeSet<u16>,
    nodes: &HashMap<Address, NodeEntry>,
    ports: &BTreeMap<u16, PortRule>,
) -> BTreeMap<u16, u64> {
    let kept = |port: &u16| {
        let groups = ports.get(port)?.groups & !groups::EVERY_NODE;
        groups.is_power_of_two().then_some((*port, groups))
    };
    let mut bits: BTreeMap<u16, u64> = special.iter().filter_map(kept).collect();
    if bits.len() == special.len() {
        return bits;
    }
    let mut taken = nodes
        .values()
        .map(|entry| entry.groups)
        .chain(ports.values().map(|rule| rule.groups))
        .fold(groups::EVERY_NODE, std::ops::BitOr::bitor);
    for port in special {
        let free = 1_u64.checked_shl(taken.trailing_ones());
        if let (false, Some(bit)) = (bits.contains_key(port), free) {
            taken |= bit;
            bits.insert(*port, bit);
        }
    }
    bits
}

fn entry(row: &Row, bits: &BTreeMap<u16, u64>, slot: u32) -> NodeEntry {
    let special = row.extra_ports.iter().filter_map(|port| bits.get(port));
    NodeEntry {
        groups: special.fold(groups::EVERY_NODE, std::ops::BitOr::bitor),
        node_mode: row.node_mode,
        closed_gate: row.closed_gate,
        slot,
        reserved: 0,
    }
}

fn rule(groups: u64, clients: u32) -> PortRule {
    PortRule {
        groups,
        kind: port_kind::TUNNELLED,
        clients,
    }
}

#[cfg(test)]
mod tests;
