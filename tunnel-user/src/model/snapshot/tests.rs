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
    assert_eq!(snapshot.conflicts().len(), 1);
    let conflict = snapshot.conflicts().next().unwrap();
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
    let mut snapshot = Snapshot::new(nodes, PortSet::new());
    for (ip, holder) in holders {
        snapshot.set_holder(address(ip), holder);
    }
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
    assert_eq!(snapshot.conflicts().cloned().collect::<Vec<_>>(), expected);
    assert_eq!(snapshot.nodes().len(), 3, "they stay reachable by name");
}

#[test]
fn a_node_states_what_is_captured_and_what_is_not() {
    let name = |node: &str| node.parse::<NodeName>().unwrap();
    let mut snapshot = Snapshot::new([node("e1", &["10.0.0.1"])], PortSet::new());
    snapshot.set_uncaptured(&name("e1"), &["192.0.2.1".parse().unwrap()]);
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
    assert_eq!(snapshot.conflicts().len(), 0);
}
