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
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use tokio::sync::watch;

use super::{Node, NodeName, OriginalDst, PortSet, Target, TunnelPort};

/// Publishes snapshots; there is one.
pub type SnapshotWriter = watch::Sender<Arc<Snapshot>>;
/// Follows snapshots; there are many.
pub type SnapshotReader = watch::Receiver<Arc<Snapshot>>;

/// The desired state at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    nodes: BTreeMap<NodeName, Arc<Node>>,
    ports: PortSet,
    loopback_ports: PortSet,
    https_ports: PortSet,
    http_ports: PortSet,
    /// In order, for a map is made of what is in order much faster than of what is not.
    owners: BTreeMap<IpAddr, Arc<Node>>,
    conflicts: Vec<AddressConflict>,
    /// Addresses that nodes say they have and that are not captured.
    uncaptured: HashMap<NodeName, Vec<IpAddr>>,
}

/// Two or more nodes that claim one address, of which none can be said to have had it first: none
/// gets it, for a guess could send a connection to the wrong machine, and connects to it are
/// refused, for the network could lead them to a third. They stay reachable by name. Nodes that are
/// not in the snapshot, because nothing is tunnelled to them, count too.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Builds the snapshot of these nodes, all of which are reached on `ports`. Plain HTTP may be spoken on each but
    /// the kubelet's, unless the source knows better.
    pub fn new(nodes: impl IntoIterator<Item = impl Into<Arc<Node>>>, ports: PortSet) -> Self {
        let nodes: BTreeMap<_, _> = nodes
            .into_iter()
            .map(Into::into)
            .map(|node| (node.name.clone(), node))
            .collect();
        let mut claims: Vec<(IpAddr, &Arc<Node>)> = nodes
            .values()
            .flat_map(|node| {
                let addresses = node.addresses.iter();
                addresses.map(move |address| (address.to_canonical(), node))
            })
            .collect();
        // Of nodes that claim the same the order stays.
        claims.sort_by_key(|(address, _)| *address);
        claims.dedup_by(|(one, node), (other, same)| one == other && Arc::ptr_eq(node, same));
        let (mut owners, mut conflicts) = (Vec::with_capacity(claims.len()), Vec::new());
        for claims in claims.chunk_by(|(one, _), (other, _)| one == other) {
            match *claims {
                [(address, node)] => owners.push((address, Arc::clone(node))),
                _ => conflicts.push(AddressConflict {
                    address: claims[0].0,
                    nodes: claims.iter().map(|(_, node)| node.name.clone()).collect(),
                }),
            }
        }
        let owners = owners.into_iter().collect();
        let http_ports = &ports - &PortSet::from([TunnelPort::KUBELET]);
        Self {
            nodes,
            ports,
            loopback_ports: PortSet::new(),
            https_ports: PortSet::new(),
            http_ports,
            owners,
            conflicts,
            uncaptured: HashMap::new(),
        }
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

    /// The same, where the source can tell who has these addresses.
    #[must_use]
    pub fn with_holders(
        mut self,
        holders: impl IntoIterator<Item = (IpAddr, AddressHolder)>,
    ) -> Self {
        let mut conflicts: BTreeMap<IpAddr, Vec<NodeName>> = std::mem::take(&mut self.conflicts)
            .into_iter()
            .map(|conflict| (conflict.address, conflict.nodes))
            .collect();
        for (address, holder) in holders {
            let address = address.to_canonical();
            self.owners.remove(&address);
            conflicts.remove(&address);
            match holder {
                AddressHolder::Node(node) => {
                    let node = self.nodes.get(&node).cloned();
                    self.owners.extend(node.map(|node| (address, node)));
                }
                AddressHolder::Outside => {}
                AddressHolder::Contested(nodes) => drop(conflicts.insert(address, nodes)),
            }
        }
        let conflict = |(address, nodes)| AddressConflict { address, nodes };
        self.conflicts = conflicts.into_iter().map(conflict).collect();
        self
    }

    /// The same, where nodes say that they have these addresses too, which are not captured.
    #[must_use]
    pub fn with_uncaptured(
        mut self,
        uncaptured: impl IntoIterator<Item = (NodeName, Vec<IpAddr>)>,
    ) -> Self {
        self.uncaptured = uncaptured.into_iter().collect();
        self
    }

    /// Whether the node says that it has this address, captured or not: what its agent's
    /// certificate may name.
    pub fn states(&self, node: &NodeName, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let captured = self.nodes.get(node).map(|node| &node.addresses);
        let all = captured.into_iter().chain(self.uncaptured.get(node));
        all.flatten().any(|known| known.to_canonical() == address)
    }

    /// Every node, by name.
    pub fn nodes(&self) -> &BTreeMap<NodeName, Arc<Node>> {
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

    /// Addresses that nobody gets because several nodes claim them: connects to them are refused.
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
    fn the_source_says_who_has_what_several_claim() {
        let name = |node: &str| node.parse::<NodeName>().unwrap();
        let address = |ip: &str| ip.parse::<IpAddr>().unwrap();
        let nodes = [
            node("e1", &["10.0.0.1", "10.0.0.3", "10.0.0.4"]),
            node("e2", &["10.0.0.2", "10.0.0.1"]),
            node("e3", &["10.0.0.2"]),
        ];
        let holders = [
            ("::ffff:10.0.0.1", AddressHolder::Node(name("e2"))),
            (
                "10.0.0.3",
                AddressHolder::Contested(vec![name("cloud"), name("e1")]),
            ),
            ("10.0.0.4", AddressHolder::Outside),
        ];
        let holders = holders.map(|(ip, holder)| (address(ip), holder));
        let snapshot = Snapshot::new(nodes, PortSet::new()).with_holders(holders);
        let owned: Vec<_> = snapshot.owned_addresses().collect();
        let owned: Vec<_> = owned.iter().map(|(ip, node)| (*ip, &node.name)).collect();
        assert_eq!(owned, [(address("10.0.0.1"), &name("e2"))]);
        let conflict = |ip, nodes: &[&str]| AddressConflict {
            address: address(ip),
            nodes: nodes.iter().map(|node| name(node)).collect(),
        };
        let expected = [
            conflict("10.0.0.2", &["e2", "e3"]),
            conflict("10.0.0.3", &["cloud", "e1"]),
        ];
        assert_eq!(snapshot.conflicts(), expected);
        assert_eq!(snapshot.nodes().len(), 3, "they stay reachable by name");
    }

    #[test]
    fn a_node_states_what_is_captured_and_what_is_not() {
        let name = |node: &str| node.parse::<NodeName>().unwrap();
        let other = vec!["192.0.2.1".parse().unwrap()];
        let snapshot = Snapshot::new([node("e1", &["10.0.0.1"])], PortSet::new())
            .with_uncaptured([(name("e1"), other)]);
        for (who, ip, states) in [
            ("e1", "10.0.0.1", true),
            ("e1", "::ffff:192.0.2.1", true),
            ("e1", "192.0.2.2", false),
            ("e2", "192.0.2.1", false),
        ] {
            assert_eq!(snapshot.states(&name(who), ip.parse().unwrap()), states);
        }
        assert_eq!(snapshot.owner("192.0.2.1".parse().unwrap()), None);
    }

    #[test]
    fn a_loopback_port_is_dialled_on_the_loopback_of_the_clients_family() {
        let port = |port| TunnelPort::new(port).unwrap();
        let snapshot = Snapshot::new([node("e1", &["10.0.0.1", "fd00::1"])], [port(9100)].into())
            .with_loopback_ports([port(10266)].into());
        for (asked, dialled) in [
            ("10.0.0.1:10266", "127.0.0.1:10266"),
            ("[::ffff:10.0.0.1]:10266", "127.0.0.1:10266"),
            ("[fd00::1]:10266", "[::1]:10266"),
            ("10.0.0.1:9100", "10.0.0.1:9100"),
            ("[fd00::1]:9100", "[fd00::1]:9100"),
        ] {
            let target = snapshot.target(OriginalDst(asked.parse().unwrap()));
            assert_eq!(target.to_string(), dialled, "for {asked}");
        }
    }

    #[test]
    fn http_is_for_every_port_but_the_kubelets_unless_the_source_knows_better() {
        let port = |port| TunnelPort::new(port).unwrap();
        let ports = [
            TunnelPort::KUBELET,
            TunnelPort::KUBELET_READ_ONLY,
            port(9100),
        ];
        let snapshot = Snapshot::new([node("e1", &[])], ports.into());
        let expected = PortSet::from([TunnelPort::KUBELET_READ_ONLY, port(9100)]);
        assert_eq!(snapshot.http_ports(), &expected);
        let told = PortSet::from([port(9100)]);
        let snapshot = snapshot.with_http_ports(told.clone());
        assert_eq!(snapshot.http_ports(), &told);
    }

    #[test]
    fn a_node_that_lists_an_address_twice_still_owns_it() {
        let snapshot = Snapshot::new([node("e1", &["10.0.0.1", "10.0.0.1"])], PortSet::new());
        assert!(snapshot.owner("10.0.0.1".parse().unwrap()).is_some());
        assert!(snapshot.conflicts().is_empty());
    }
}
