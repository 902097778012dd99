//! How a source makes a snapshot: at once, or from a clone of the one before.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::{AddressConflict, AddressHolder, Snapshot};
use crate::model::{Node, NodeName, PortSet, TunnelPort};

impl Snapshot {
    /// Builds the snapshot of these nodes, all of which are reached on `ports`. Plain HTTP may be spoken on each but
    /// the kubelet's, unless the source knows better. An address that two of them claim is nobody's.
    pub fn new(nodes: impl IntoIterator<Item = impl Into<Arc<Node>>>, ports: PortSet) -> Self {
        let mut snapshot = Self::default();
        let mut claims: BTreeMap<IpAddr, Vec<NodeName>> = BTreeMap::new();
        for node in nodes.into_iter().map(Into::into) {
            for address in &node.addresses {
                let claimants = claims.entry(address.to_canonical()).or_default();
                claimants.push(node.name.clone());
            }
            snapshot.set_node(node);
        }
        for (address, mut claimants) in claims {
            claimants.sort();
            claimants.dedup();
            let holder = match &*claimants {
                [only] => AddressHolder::Node(only.clone()),
                _ => AddressHolder::Contested(claimants),
            };
            snapshot.set_holder(address, holder);
        }
        let http_ports = &ports - &PortSet::from([TunnelPort::KUBELET]);
        snapshot.with_ports(ports).with_http_ports(http_ports)
    }

    /// The same, where every node is reached on these ports.
    #[must_use]
    pub fn with_ports(mut self, ports: PortSet) -> Self {
        self.ports = ports;
        self
    }

    /// The same, where on these ports, reached or not, a node's services listen on its loopback.
    #[must_use]
    pub fn with_loopback_ports(mut self, ports: PortSet) -> Self {
        self.loopback_ports = ports;
        self
    }

    /// The same, where TLS is spoken on these ports, so that clients may name the node by it.
    #[must_use]
    pub fn with_https_ports(mut self, ports: PortSet) -> Self {
        self.https_ports = ports;
        self
    }

    /// The same, where plain HTTP is spoken on these ports.
    #[must_use]
    pub fn with_http_ports(mut self, ports: PortSet) -> Self {
        self.http_ports = ports;
        self
    }

    /// Adds the node, or puts it in the place of the one of that name. Who has its addresses is said by
    /// [`set_holder`](Self::set_holder), for each of them again.
    pub fn set_node(&mut self, node: impl Into<Arc<Node>>) {
        let node = node.into();
        for port in &node.extra_ports {
            *self.extra_ports.entry(*port).or_default() += 1;
        }
        let before = self.nodes.insert(node.name.clone(), node);
        self.release_ports(before.as_deref());
    }

    /// Removes the node; who has its addresses is said by the others.
    pub fn remove_node(&mut self, name: &NodeName) {
        let before = self.nodes.remove(name);
        self.release_ports(before.as_deref());
        self.uncaptured.remove(name);
    }

    /// Says who has this address, as the source can tell.
    pub fn set_holder(&mut self, address: IpAddr, holder: AddressHolder) {
        let address = address.to_canonical();
        let owner = match &holder {
            AddressHolder::Node(node) => self.nodes.get(node).cloned(),
            AddressHolder::Outside | AddressHolder::Contested(_) => None,
        };
        match owner {
            Some(owner) => drop(self.owners.insert(address, owner)),
            None => drop(self.owners.remove(&address)),
        }
        match holder {
            AddressHolder::Contested(nodes) => {
                let conflict = AddressConflict { address, nodes };
                self.conflicts.insert(address, conflict);
            }
            AddressHolder::Node(_) | AddressHolder::Outside => {
                drop(self.conflicts.remove(&address));
            }
        }
    }

    /// Says which addresses besides those that are captured a node states.
    pub fn set_uncaptured(&mut self, node: &NodeName, addresses: &[IpAddr]) {
        if addresses.is_empty() {
            self.uncaptured.remove(node);
        } else {
            self.uncaptured.insert(node.clone(), addresses.to_vec());
        }
    }

    fn release_ports(&mut self, before: Option<&Node>) {
        for port in before.into_iter().flat_map(|node| &node.extra_ports) {
            match self.extra_ports.get_mut(port) {
                Some(nodes) if *nodes > 1 => *nodes -= 1,
                _ => drop(self.extra_ports.remove(port)),
            }
        }
    }
}
