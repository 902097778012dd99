//! The desired state: which nodes exist, under which addresses, on which ports.
//!
//! ```text
//!  source --writes--> watch --reads--> redirect   (what to capture)
//!                                 \--> tunnel     (who may register)
//!                                  \-> frontends  (which node owns an address)
//! ```
//! A snapshot is complete and immutable: readers compare two of them, they never patch one. Its maps are persistent
//! ones: a clone shares everything with its original, an edit of the clone copies a few entries, and a comparison looks
//! only at what is not shared. So the change of one node costs the same among ten nodes and among ten thousand.

mod difference;
mod edit;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use imbl::OrdMap;
use tokio::sync::watch;

pub use self::difference::NodeChange;
use super::{Node, NodeName, OriginalDst, PortSet, Target, TunnelPort};

/// Publishes snapshots; there is one.
pub type SnapshotWriter = watch::Sender<Arc<Snapshot>>;
/// Follows snapshots; there are many.
pub type SnapshotReader = watch::Receiver<Arc<Snapshot>>;

/// The desired state at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    nodes: OrdMap<NodeName, Arc<Node>>,
    ports: PortSet,
    loopback_ports: PortSet,
    https_ports: PortSet,
    http_ports: PortSet,
    /// How many nodes have each port that not every node has.
    extra_ports: OrdMap<TunnelPort, usize>,
    owners: OrdMap<IpAddr, Arc<Node>>,
    conflicts: OrdMap<IpAddr, AddressConflict>,
    /// Addresses that nodes say they have and that are not captured.
    uncaptured: OrdMap<NodeName, Vec<IpAddr>>,
}

/// Two or more nodes that claim one address, of which none can be said to have had it first: none
/// gets it, for a guess could send a connection to the wrong machine, and connects to it are
/// refused, for the network could lead them to a third. They stay reachable by name. Nodes that are
/// not in the snapshot, because nothing is tunnelled to them, count too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressConflict {
    /// The address claimed more than once.
    pub address: IpAddr,
    /// Everyone who claims it, in order.
    pub nodes: Vec<NodeName>,
}

/// Who has an address that several nodes claim, as far as the source can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressHolder {
    /// This node of the snapshot.
    Node(NodeName),
    /// A node to which nothing is tunnelled under this address: connects pass untouched.
    Outside,
    /// Nobody can be said to have it: these claim it, in order.
    Contested(Vec<NodeName>),
}

impl Snapshot {
    /// Whether the node says that it has this address, captured or not: what its agent's
    /// certificate may name.
    pub fn states(&self, node: &NodeName, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let captured = self.nodes.get(node).map(|node| &node.addresses);
        let all = captured.into_iter().chain(self.uncaptured.get(node));
        all.flatten().any(|known| known.to_canonical() == address)
    }

    /// Every node, by name.
    pub fn nodes(&self) -> &OrdMap<NodeName, Arc<Node>> {
        &self.nodes
    }

    /// The ports on which every node is reached.
    pub fn ports(&self) -> &PortSet {
        &self.ports
    }

    /// The ports whose services listen on a node's loopback.
    pub fn loopback_ports(&self) -> &PortSet {
        &self.loopback_ports
    }

    /// The ports on which TLS is spoken, the kubelet's aside.
    pub fn https_ports(&self) -> &PortSet {
        &self.https_ports
    }

    /// The ports on which plain HTTP is spoken.
    pub fn http_ports(&self) -> &PortSet {
        &self.http_ports
    }

    /// What the agent dials for a client that asked for this: the same, or the loopback of the same
    /// family where that is the port's place.
    pub fn target(&self, original_dst: OriginalDst) -> Target {
        let ip = original_dst.0.ip().to_canonical();
        let port = original_dst.0.port();
        let on_loopback =
            TunnelPort::new(port).is_some_and(|port| self.loopback_ports.contains(&port));
        let ip = match ip {
            IpAddr::V4(_) if on_loopback => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) if on_loopback => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, port).into()
    }

    /// The node with this name.
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name).map(Arc::as_ref)
    }

    /// The one node that owns this address, v4-mapped IPv6 being the same as IPv4.
    pub fn owner(&self, address: IpAddr) -> Option<&Node> {
        self.owners.get(&address.to_canonical()).map(Arc::as_ref)
    }

    /// Every address with exactly one owner, in order.
    pub fn owned_addresses(&self) -> impl Iterator<Item = (IpAddr, &Node)> {
        let owners = self.owners.iter();
        owners.map(|(address, node)| (*address, node.as_ref()))
    }

    /// The ports that not every node has, but some node, in order.
    pub fn extra_ports(&self) -> impl Iterator<Item = TunnelPort> {
        self.extra_ports.keys().copied()
    }

    /// Addresses that nobody gets because several nodes claim them, in order: connects to them are refused.
    pub fn conflicts(&self) -> impl ExactSizeIterator<Item = &AddressConflict> {
        self.conflicts.values()
    }

    /// What is wrong with this address, if several nodes claim it.
    pub fn conflict(&self, address: IpAddr) -> Option<&AddressConflict> {
        self.conflicts.get(&address.to_canonical())
    }
}

#[cfg(test)]
mod tests;
