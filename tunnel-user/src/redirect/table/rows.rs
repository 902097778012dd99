//! What the redirect does with one address: captures it for its node, refuses it because several nodes claim it, or
//! leaves it alone.

use std::{collections::BTreeSet, net::IpAddr};

use tunnel_ebpf::{groups, node_mode, policy};

use super::Row;
use crate::model::{AddressConflict, GatePolicy, Node, NodeName, PortSet, Snapshot, TunnelPort};

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

/// What the rows of a snapshot are made of.
pub(super) struct Rows<'a> {
    snapshot: &'a Snapshot,
    own: &'a BTreeSet<IpAddr>,
    default_policy: GatePolicy,
    node_mode: &'a dyn Fn(&NodeName) -> NodeMode,
    ports: BTreeSet<u16>,
    /// The ports that only some nodes have, as many as can be told apart.
    special: BTreeSet<u16>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(
        snapshot: &'a Snapshot,
        own: &'a BTreeSet<IpAddr>,
        default_policy: GatePolicy,
        node_mode: &'a dyn Fn(&NodeName) -> NodeMode,
    ) -> Self {
        let ports: BTreeSet<u16> = snapshot.ports().iter().map(|port| port.number()).collect();
        let extra = snapshot.extra_ports().map(TunnelPort::number);
        let special = extra.filter(|port| !ports.contains(port));
        Self {
            snapshot,
            own,
            default_policy,
            node_mode,
            special: special.take(groups::SPECIAL as usize).collect(),
            ports,
        }
    }

    /// The ports on which every node is reached.
    pub(super) fn ports(&self) -> &BTreeSet<u16> {
        &self.ports
    }

    /// Whether the rows of addresses that have not changed are the same by both.
    pub(super) fn have_the_ports_of(&self, other: &Rows<'_>) -> bool {
        self.ports == other.ports && self.special == other.special
    }

    /// The address's row, if it is captured or refused, and what had to be left out.
    pub(super) fn of(&self, address: IpAddr) -> (Option<Row>, Vec<Excluded>) {
        let exclusion = exclusion(address, self.own);
        match (self.snapshot.owner(address), exclusion) {
            (Some(node), None) => self.captured(address, node),
            (Some(node), Some(reason)) => (None, vec![excluded(address, node, reason)]),
            (None, None) => {
                let conflict = self.snapshot.conflict(address);
                (
                    conflict.map(|conflict| self.contested(conflict)),
                    Vec::new(),
                )
            }
            (None, Some(_)) => (None, Vec::new()),
        }
    }

    fn captured(&self, address: IpAddr, node: &Node) -> (Option<Row>, Vec<Excluded>) {
        let (extra_ports, too_many) = self
            .wanted(&node.extra_ports)
            .partition::<Vec<u16>, _>(|port| self.special.contains(port));
        let too_many = too_many
            .into_iter()
            .map(|port| Exclusion::TooManyPorts { port });
        let left_out = too_many.map(|reason| excluded(address, node, reason));
        let row = Row {
            node_mode: (self.node_mode)(&node.name).into(),
            closed_gate: policy_code(node.closed_gate.unwrap_or(self.default_policy)),
            extra_ports,
        };
        (Some(row), left_out.collect())
    }

    /// An address that nobody has: the network might lead a connect to it anywhere.
    fn contested(&self, conflict: &AddressConflict) -> Row {
        let claimants = conflict.nodes.iter();
        let extra_ports: BTreeSet<u16> = claimants
            .filter_map(|node| self.snapshot.node(node))
            .flat_map(|node| node.extra_ports.iter().map(|port| port.number()))
            .filter(|port| self.special.contains(port))
            .collect();
        Row {
            node_mode: NodeMode::Refuse.into(),
            closed_gate: policy_code(self.default_policy),
            extra_ports: extra_ports.into_iter().collect(),
        }
    }

    fn wanted(&self, extra: &PortSet) -> impl Iterator<Item = u16> {
        let extra = extra.iter().map(|port| port.number());
        extra.filter(|port| !self.ports.contains(port))
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

fn excluded(address: IpAddr, node: &Node, reason: Exclusion) -> Excluded {
    let node = node.name.clone();
    Excluded {
        address,
        node,
        reason,
    }
}

fn policy_code(policy: GatePolicy) -> u32 {
    match policy {
        GatePolicy::Bypass => policy::BYPASS,
        GatePolicy::Refuse => policy::REFUSE,
    }
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
