//! What is to be captured: the snapshot, reduced to addresses and ports.

mod arrival;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use tunnel_ebpf::{Address, MAX_NODES, MAX_PORTS, clients, groups, node_mode, policy};

use super::ApplyError;
use crate::model::{AddressConflict, GatePolicy, NodeName, PortSet, Snapshot};

/// How a node stands with the server. It counts while the gate is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeMode {
    /// Its connects are redirected.
    #[default]
    Capture,
    /// Its connects pass untouched.
    Bypass,
    /// Its connects are refused.
    Refuse,
}

/// Everything that the redirect captures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub(super) nodes: BTreeMap<[u8; 16], Row>,
    /// The ports on which every node is reached.
    pub(super) ports: BTreeSet<u16>,
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

/// An address, or a port of it, that is not captured although a node claims it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Excluded {
    /// The node's address.
    pub address: IpAddr,
    /// The node.
    pub node: NodeName,
    /// Why not.
    pub reason: Exclusion,
}

/// Why an address or port is not captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Exclusion {
    /// It is an address of this machine: capturing it would take the machine's own connects.
    #[error("it is an address of this machine")]
    OwnAddress,
    /// Loopback, unspecified, multicast, broadcast: no other machine can have it.
    #[error("no other machine can have such an address")]
    NotUnicast,
    /// More different ports of some nodes only than can be told apart.
    #[error("port {port} is one too many of those that only some nodes have (63)")]
    TooManyPorts {
        /// The port that is not captured.
        port: u16,
    },
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
        let ports: BTreeSet<u16> = snapshot.ports().iter().map(|port| port.number()).collect();
        let special = special_ports(snapshot, &ports);
        // In order, so that the map is made at once and not row by row.
        let mut rows = Vec::with_capacity(snapshot.nodes().len() * 2);
        let mut excluded = Vec::new();
        for (address, node) in snapshot.owned_addresses() {
            let mut exclude = |reason| {
                excluded.push(Excluded {
                    address,
                    node: node.name.clone(),
                    reason,
                });
            };
            if let Some(reason) = exclusion(address, own) {
                exclude(reason);
                continue;
            }
            let (extra_ports, too_many) = wanted(&node.extra_ports, &ports)
                .partition::<Vec<u16>, _>(|port| special.contains(port));
            for port in too_many {
                exclude(Exclusion::TooManyPorts { port });
            }
            let row = Row {
                node_mode: node_mode(&node.name).into(),
                closed_gate: policy_code(node.closed_gate.unwrap_or(default_policy)),
                extra_ports,
            };
            rows.push((Address::from(address).octets, row));
        }
        for conflict in snapshot.conflicts() {
            if exclusion(conflict.address, own).is_none() {
                let row = contested(conflict, snapshot, &special, default_policy);
                rows.push((Address::from(conflict.address).octets, row));
            }
        }
        excluded.sort();
        let table = Self {
            nodes: rows.into_iter().collect(),
            ports,
            own_namespace_ports: BTreeSet::new(),
        };
        (table, excluded)
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
        let ports = self.ports.len() + self.special_ports().len() + 1;
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
        let rows = self.nodes.values();
        rows.flat_map(|row| row.extra_ports.iter().copied())
            .collect()
    }
}

impl From<NodeMode> for u32 {
    fn from(node_mode: NodeMode) -> Self {
        match node_mode {
            NodeMode::Capture => node_mode::CAPTURE,
            NodeMode::Bypass => node_mode::BYPASS,
            NodeMode::Refuse => node_mode::REFUSE,
        }
    }
}

/// An address that nobody has: the network might lead a connect to it anywhere.
fn contested(
    conflict: &AddressConflict,
    snapshot: &Snapshot,
    special: &BTreeSet<u16>,
    default_policy: GatePolicy,
) -> Row {
    let claimants = conflict.nodes.iter();
    let extra_ports: BTreeSet<u16> = claimants
        .filter_map(|node| snapshot.node(node))
        .flat_map(|node| node.extra_ports.iter().map(|port| port.number()))
        .filter(|port| special.contains(port))
        .collect();
    Row {
        node_mode: NodeMode::Refuse.into(),
        closed_gate: policy_code(default_policy),
        extra_ports: extra_ports.into_iter().collect(),
    }
}

fn policy_code(policy: GatePolicy) -> u32 {
    match policy {
        GatePolicy::Bypass => policy::BYPASS,
        GatePolicy::Refuse => policy::REFUSE,
    }
}

/// The ports that only some nodes have, as many as can be told apart.
fn special_ports(snapshot: &Snapshot, ports: &BTreeSet<u16>) -> BTreeSet<u16> {
    let all: BTreeSet<u16> = snapshot
        .nodes()
        .values()
        .flat_map(|node| wanted(&node.extra_ports, ports))
        .collect();
    all.into_iter().take(groups::SPECIAL as usize).collect()
}

fn wanted(extra: &PortSet, every_node: &BTreeSet<u16>) -> impl Iterator<Item = u16> {
    extra
        .iter()
        .map(|port| port.number())
        .filter(|port| !every_node.contains(port))
}

fn exclusion(address: IpAddr, own: &BTreeSet<IpAddr>) -> Option<Exclusion> {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if broadcast || address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        Some(Exclusion::NotUnicast)
    } else if own.contains(&address) {
        Some(Exclusion::OwnAddress)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
