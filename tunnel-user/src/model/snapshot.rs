//! The desired state: which nodes exist, under which addresses, on which ports.
//!
//! ```text
//!  source --writes--> watch --reads--> redirect   (what to capture)
//!                                 \--> tunnel     (who may register)
//!                                  \-> frontends  (which node owns an address)
//! ```
//! A snapshot is complete and immutable: readers compare two of them, they never patch one.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use tokio::sync::watch;

use super::{Node, NodeName, PortSet};

/// Publishes snapshots; there is one.
pub type SnapshotWriter = watch::Sender<Arc<Snapshot>>;
/// Follows snapshots; there are many.
pub type SnapshotReader = watch::Receiver<Arc<Snapshot>>;

/// The desired state at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    nodes: BTreeMap<NodeName, Node>,
    ports: PortSet,
    owners: HashMap<IpAddr, NodeName>,
    conflicts: Vec<AddressConflict>,
}

/// Two or more nodes that claim one address: none of them gets it, for a guess could send a
/// connection to the wrong machine. They stay reachable by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressConflict {
    /// The address claimed more than once.
    pub address: IpAddr,
    /// Everyone who claims it, in order.
    pub nodes: Vec<NodeName>,
}

impl Snapshot {
    /// Builds the snapshot of these nodes, all of which are reached on `ports`.
    pub fn new(nodes: impl IntoIterator<Item = Node>, ports: PortSet) -> Self {
        let nodes: BTreeMap<_, _> = nodes
            .into_iter()
            .map(|node| (node.name.clone(), node))
            .collect();
        let mut claims: BTreeMap<IpAddr, Vec<NodeName>> = BTreeMap::new();
        for node in nodes.values() {
            for address in &node.addresses {
                let claimants = claims.entry(address.to_canonical()).or_default();
                if claimants.last() != Some(&node.name) {
                    claimants.push(node.name.clone());
                }
            }
        }
        let mut owners = HashMap::with_capacity(claims.len());
        let mut conflicts = Vec::new();
        for (address, mut claimants) in claims {
            match claimants.len() {
                1 => drop(owners.insert(address, claimants.remove(0))),
                _ => conflicts.push(AddressConflict {
                    address,
                    nodes: claimants,
                }),
            }
        }
        Self {
            nodes,
            ports,
            owners,
            conflicts,
        }
    }

    /// Every node, by name.
    pub fn nodes(&self) -> &BTreeMap<NodeName, Node> {
        &self.nodes
    }

    /// The ports on which every node is reached.
    pub fn ports(&self) -> &PortSet {
        &self.ports
    }

    /// The node with this name.
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// The one node that owns this address, v4-mapped IPv6 being the same as IPv4.
    pub fn owner(&self, address: IpAddr) -> Option<&Node> {
        self.owners
            .get(&address.to_canonical())
            .and_then(|name| self.nodes.get(name))
    }

    /// Every address with exactly one owner, in no particular order.
    pub fn owned_addresses(&self) -> impl Iterator<Item = (IpAddr, &Node)> {
        self.owners
            .iter()
            .filter_map(|(address, name)| Some((*address, self.nodes.get(name)?)))
    }

    /// Addresses that nobody gets because several nodes claim them.
    pub fn conflicts(&self) -> &[AddressConflict] {
        &self.conflicts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TunnelPort;

    fn node(name: &str, addresses: &[&str]) -> Node {
        Node {
            name: name.parse().unwrap(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            extra_ports: PortSet::new(),
            closed_gate: None,
            admits: None,
        }
    }

    #[test]
    fn an_address_leads_to_its_node_in_either_notation() {
        let snapshot = Snapshot::new(
            [node("e1", &["10.0.0.1", "fd00::1"])],
            [TunnelPort::KUBELET].into(),
        );
        for address in ["10.0.0.1", "::ffff:10.0.0.1", "fd00::1"] {
            let owner = snapshot.owner(address.parse().unwrap()).expect("owned");
            assert_eq!(owner.name.as_str(), "e1");
        }
        assert_eq!(snapshot.owner("10.0.0.2".parse().unwrap()), None);
    }

    #[test]
    fn an_address_claimed_twice_belongs_to_nobody() {
        let snapshot = Snapshot::new(
            [
                node("e1", &["10.0.0.1", "10.0.0.3"]),
                node("e2", &["::ffff:10.0.0.1"]),
            ],
            PortSet::new(),
        );
        assert_eq!(snapshot.owner("10.0.0.1".parse().unwrap()), None);
        assert!(snapshot.owner("10.0.0.3".parse().unwrap()).is_some());
        let [conflict] = snapshot.conflicts() else {
            panic!("one conflict expected")
        };
        assert_eq!(
            conflict
                .nodes
                .iter()
                .map(NodeName::as_str)
                .collect::<Vec<_>>(),
            ["e1", "e2"]
        );
    }

    #[test]
    fn a_node_that_lists_an_address_twice_still_owns_it() {
        let snapshot = Snapshot::new([node("e1", &["10.0.0.1", "10.0.0.1"])], PortSet::new());
        assert!(snapshot.owner("10.0.0.1".parse().unwrap()).is_some());
        assert!(snapshot.conflicts().is_empty());
    }
}
