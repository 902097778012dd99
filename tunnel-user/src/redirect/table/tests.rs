use tunnel_ebpf::{node_mode, policy};

use super::*;
use crate::model::{Node, TunnelPort};

fn port(number: u16) -> TunnelPort {
    TunnelPort::new(number).unwrap()
}

fn node(name: &str, addresses: &[&str], extra: &[u16]) -> Node {
    Node {
        name: name.parse().unwrap(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        extra_ports: extra.iter().copied().map(port).collect(),
        closed_gate: None,
        admits: None,
    }
}

fn table(nodes: Vec<Node>, own: &[&str]) -> (Table, Vec<Excluded>) {
    let snapshot = Snapshot::new(nodes, [port(10250), port(10255)].into());
    let own = own.iter().map(|a| a.parse().unwrap()).collect();
    Table::new(&snapshot, &own, GatePolicy::Bypass, |_| NodeMode::Capture)
}

fn row<'a>(table: &'a Table, address: &str) -> &'a Row {
    let address: IpAddr = address.parse().unwrap();
    &table.nodes[&Address::from(address).octets]
}

#[test]
fn an_own_address_is_never_captured_even_if_a_node_claims_it() {
    let (table, excluded) = table(
        vec![node("e1", &["10.0.0.1", "192.0.2.7", "fd00::7"], &[])],
        &["192.0.2.7", "fd00::7", "127.0.0.1"],
    );
    assert_eq!(table.addresses(), 1);
    let left_out: Vec<_> = excluded
        .iter()
        .map(|e| (e.address.to_string(), e.reason))
        .collect();
    assert_eq!(
        left_out,
        [
            ("192.0.2.7".to_owned(), Exclusion::OwnAddress),
            ("fd00::7".to_owned(), Exclusion::OwnAddress)
        ]
    );
}

#[test]
fn connects_to_an_address_that_nobody_has_are_refused_on_every_port_of_its_claimants() {
    let nodes = vec![
        node("e1", &["10.0.0.1", "192.0.2.7"], &[10350]),
        node("e2", &["10.0.0.1", "10.0.0.2", "192.0.2.7"], &[10450]),
    ];
    let (table, excluded) = table(nodes, &["192.0.2.7"]);
    assert_eq!(row(&table, "10.0.0.1").node_mode, node_mode::REFUSE);
    assert_eq!(row(&table, "10.0.0.1").extra_ports, [10350, 10450]);
    assert_eq!(row(&table, "10.0.0.2").node_mode, node_mode::CAPTURE);
    // This machine's own: its processes reach themselves, whoever claims that.
    assert_eq!((table.addresses(), excluded), (2, vec![]));
}

#[test]
fn addresses_that_no_other_machine_can_have_are_left_out() {
    let addresses = [
        "127.0.0.5",
        "::1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
    ];
    let (table, excluded) = table(vec![node("e1", &addresses, &[])], &[]);
    assert_eq!(table.addresses(), 0);
    assert_eq!(excluded.len(), addresses.len());
    assert!(excluded.iter().all(|e| e.reason == Exclusion::NotUnicast));
}

#[test]
fn a_port_of_every_node_is_no_extra_port() {
    let (table, excluded) = table(vec![node("e1", &["10.0.0.1"], &[10250, 12000])], &[]);
    assert!(excluded.is_empty());
    assert_eq!(row(&table, "10.0.0.1").extra_ports, [12000]);
    assert_eq!(table.ports, [10250, 10255].into());
}

#[test]
fn more_extra_ports_than_groups_are_reported_port_by_port() {
    let ports: Vec<u16> = (20000..20065).collect();
    let (table, excluded) = table(vec![node("e1", &["10.0.0.1"], &ports)], &[]);
    assert_eq!(row(&table, "10.0.0.1").extra_ports.len(), 63);
    let too_many: Vec<_> = excluded.iter().map(|e| e.reason).collect();
    assert_eq!(
        too_many,
        [
            Exclusion::TooManyPorts { port: 20063 },
            Exclusion::TooManyPorts { port: 20064 }
        ]
    );
}

#[test]
fn a_nodes_own_policy_and_mode_win() {
    let mut refusing = node("e1", &["10.0.0.1"], &[]);
    refusing.closed_gate = Some(GatePolicy::Refuse);
    let gone: NodeName = "e2".parse().unwrap();
    let snapshot = Snapshot::new(
        [refusing, node("e2", &["10.0.0.2"], &[])],
        [port(10250)].into(),
    );
    let (table, _) = Table::new(&snapshot, &BTreeSet::new(), GatePolicy::Bypass, |name| {
        if *name == gone {
            NodeMode::Refuse
        } else {
            NodeMode::Capture
        }
    });
    assert_eq!(row(&table, "10.0.0.1").closed_gate, policy::REFUSE);
    assert_eq!(row(&table, "10.0.0.1").node_mode, node_mode::CAPTURE);
    assert_eq!(row(&table, "10.0.0.2").closed_gate, policy::BYPASS);
    assert_eq!(row(&table, "10.0.0.2").node_mode, node_mode::REFUSE);
}
