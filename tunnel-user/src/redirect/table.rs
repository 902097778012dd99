//! What is to be captured: the snapshot, reduced to addresses and ports.

mod arrival;
mod builder;
mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use imbl::OrdMap;
use tunnel_ebpf::{Address, MAX_NODES, MAX_PORTS, clients};

use self::{builder::Built, rows::Rows};
pub use self::{
    builder::TableBuilder,
    rows::{Excluded, Exclusion, NodeMode},
};
use super::ApplyError;
use crate::model::{GatePolicy, NodeName, Snapshot};

/// Everything that the redirect captures. Its rows are in a persistent map: a clone costs nothing, and two tables of
/// which one was made from the other are compared by what they do not share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub(super) nodes: OrdMap<[u8; 16], Row>,
    /// The ports on which every node is reached.
    pub(super) ports: BTreeSet<u16>,
    /// How many rows have each port that only some nodes have.
    special_ports: BTreeMap<u16, usize>,
    /// Ports, of every node or some, that only the server's own network namespace may use.
    pub(super) own_namespace_ports: BTreeSet<u16>,
}

/// One address of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) node_mode: u32,
    pub(super) closed_gate: u32,
    /// Ports of this node besides those of every node.
    pub(super) extra_ports: Vec<u16>,
}

impl Table {
    /// The table of a snapshot, and what had to be left out of it.
    ///
    /// `own` are this machine's addresses, `default_policy` is what nodes get that name no policy.
    pub fn new(
        snapshot: &Snapshot,
        own: &BTreeSet<IpAddr>,
        default_policy: GatePolicy,
        node_mode: impl Fn(&NodeName) -> NodeMode,
    ) -> (Self, Vec<Excluded>) {
        let rows = Rows::new(snapshot, own, default_policy, &node_mode);
        let Built { table, excluded } = Built::new(snapshot, &rows);
        (table, excluded.into_values().flatten().collect())
    }

    /// The same, where on these ports only processes of the server's own network namespace are let
    /// through.
    #[must_use]
    pub fn for_own_namespace(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.own_namespace_ports = ports.into_iter().collect();
        self
    }

    pub(super) fn clients_of(&self, port: u16) -> u32 {
        if self.own_namespace_ports.contains(&port) {
            clients::OWN_NAMESPACE
        } else {
            clients::ALL
        }
    }

    /// How many addresses of nodes are captured, or refused because several nodes claim them.
    pub fn addresses(&self) -> usize {
        self.nodes.len() - self.probes()
    }

    pub(super) fn check_size(&self) -> Result<(), ApplyError> {
        // One more for the redirect's own port.
        let ports = self.ports.len() + self.special_ports.len() + 1;
        if self.nodes.len() > MAX_NODES {
            Err(ApplyError::TooManyAddresses {
                wanted: self.nodes.len(),
                most: MAX_NODES,
            })
        } else if ports > MAX_PORTS {
            Err(ApplyError::TooManyPorts {
                wanted: ports,
                most: MAX_PORTS,
            })
        } else {
            Ok(())
        }
    }

    /// Every port that only some nodes have.
    pub(super) fn special_ports(&self) -> BTreeSet<u16> {
        self.special_ports.keys().copied().collect()
    }

    /// Puts the row in the place of the address's own, or takes that away.
    pub(super) fn set(&mut self, address: IpAddr, row: Option<Row>) {
        let octets = Address::from(address).octets;
        for port in row.iter().flat_map(|row| &row.extra_ports) {
            *self.special_ports.entry(*port).or_default() += 1;
        }
        let before = match row {
            Some(row) => self.nodes.insert(octets, row),
            None => self.nodes.remove(&octets),
        };
        for port in before.iter().flat_map(|row| &row.extra_ports) {
            match self.special_ports.get_mut(port) {
                Some(rows) if *rows > 1 => *rows -= 1,
                _ => drop(self.special_ports.remove(port)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
