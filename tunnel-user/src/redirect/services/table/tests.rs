use std::collections::BTreeSet;

use super::*;
use crate::{
    model::{GatePolicy, Node, NodeName, Snapshot, TunnelPort},
    redirect::NodeMode,
};

fn nodes(closed_gate: GatePolicy) -> Table {
    let port = |port| TunnelPort::new(port).unwrap();
    let node = |name: &str, addresses: &[&str], extra: &[u16]| Node {
        name: name.parse().unwrap(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        extra_ports: extra.iter().copied().map(port).collect(),
        closed_gate: None,
        admits: None,
    };
    let nodes = [
        node("e1", &["10.78.0.11", "fd00:78::11"], &[]),
        node("e2", &["10.78.0.12"], &[12000]),
    ];
    let snapshot = Snapshot::new(nodes, [port(10250)].into());
    let capture = |_: &NodeName| NodeMode::Capture;
    Table::new(&snapshot, &BTreeSet::new(), closed_gate, capture).0
}

fn service(cluster: &str, endpoints: &[&str]) -> ServiceEndpoints {
    ServiceEndpoints {
        cluster: cluster.parse().unwrap(),
        service: ServiceName::new("monitoring", "kubelet"),
        affinity: false,
        endpoints: endpoints.iter().map(|at| at.parse().unwrap()).collect(),
    }
}

fn of(services: &[ServiceEndpoints]) -> ServiceTable {
    let (table, left_out) = ServiceTable::new(services, &nodes(GatePolicy::Bypass));
    assert_eq!(left_out, []);
    table
}

#[test]
fn a_service_is_caught_if_an_endpoint_is_a_nodes_address_on_a_port_that_is_tunnelled_there() {
    for (endpoints, caught) in [
        (&["10.78.0.11:10250"][..], true),
        (&["10.0.0.1:10250", "10.78.0.11:10250"], true),
        (&["[fd00:78::11]:10250"], true),
        (&["10.78.0.12:12000"], true),
        // The port of another node, another port, another address, nothing.
        (&["10.78.0.11:12000"], false),
        (&["10.78.0.11:10255"], false),
        (&["10.0.0.1:10250"], false),
        (&[], false),
    ] {
        let table = of(&[service("10.96.0.5:443", endpoints)]);
        assert_eq!(table.services() == 1, caught, "{endpoints:?}");
    }
}

#[test]
fn all_endpoints_are_kept_and_those_of_nodes_counted() {
    let table = of(&[service(
        "10.96.0.5:443",
        &["10.0.0.1:10250", "10.78.0.11:10250", "10.78.0.12:10250"],
    )]);
    let caught: Vec<_> = table.caught().collect();
    assert_eq!((caught[0].backends, caught[0].tunnelled), (3, 2));
    assert_eq!(caught[0].service.to_string(), "monitoring/kubelet");
    assert_eq!(table.backends(), 3);
}

#[test]
fn what_is_a_nodes_own_address_and_port_is_no_service() {
    let table = of(&[service("10.78.0.12:10250", &["10.78.0.11:10250"])]);
    assert_eq!(table, ServiceTable::default());
}

#[test]
fn a_service_refuses_while_the_gate_is_closed_if_a_node_of_it_does() {
    for (policy, flags) in [
        (GatePolicy::Bypass, 0),
        (GatePolicy::Refuse, service_flags::REFUSE),
    ] {
        let mixed = service("10.96.0.5:443", &["10.0.0.1:10250", "10.78.0.11:10250"]);
        let (table, _) = ServiceTable::new(&[mixed], &nodes(policy));
        let row = table.services.values().next().unwrap();
        assert_eq!(row.flags, flags, "{policy:?}");
    }
    let mut sticky = service("10.96.0.5:443", &["10.78.0.11:10250"]);
    sticky.affinity = true;
    let row = of(&[sticky]).services.pop_first().unwrap().1;
    assert_eq!(row.flags, service_flags::AFFINITY);
}

#[test]
fn what_does_not_fit_is_told_and_the_rest_is_caught() {
    let number = |i: usize| format!("10.96.{}.{}:443", i / 256, i % 256);
    let many: Vec<_> = (0..=MAX_SERVICES)
        .map(|i| service(&number(i), &["10.78.0.11:10250"]))
        .collect();
    let (table, left_out) = ServiceTable::new(&many, &nodes(GatePolicy::Bypass));
    assert_eq!(table.services(), MAX_SERVICES);
    assert_eq!(left_out.len(), 1);
    assert_eq!(left_out[0].cluster.to_string(), number(MAX_SERVICES));

    let port = |port| SocketAddr::new("10.0.0.1".parse().unwrap(), port);
    let huge = |cluster, endpoints: usize| {
        let mut huge = service(cluster, &["10.78.0.11:10250"]);
        huge.endpoints
            .extend((1..=u16::MAX).map(port).take(endpoints - 1));
        huge
    };
    let quarter = MAX_BACKENDS / 4;
    let numbers = [
        "10.96.0.1:443",
        "10.96.0.2:443",
        "10.96.0.3:443",
        "10.96.0.4:443",
    ];
    let mut all = numbers.map(|cluster| huge(cluster, quarter)).to_vec();
    all.push(service("10.96.0.5:443", &["10.78.0.11:10250"]));
    all.push(huge("10.96.0.6:443", quarter + 1));
    let (table, left_out) = ServiceTable::new(&all, &nodes(GatePolicy::Bypass));
    assert_eq!((table.services(), table.backends()), (4, MAX_BACKENDS));
    let left_out: Vec<_> = left_out.iter().map(|one| one.cluster.to_string()).collect();
    assert_eq!(left_out, ["10.96.0.5:443", "10.96.0.6:443"]);
}

#[test]
fn a_namespace_cannot_take_the_room_of_the_others() {
    let of = |namespace, i: usize| {
        let mut one = service(
            &format!("10.96.{}.{}:443", i / 256, i % 256),
            &["10.78.0.11:10250"],
        );
        one.service = ServiceName::new(namespace, "a");
        one
    };
    let mut all: Vec<_> = (0..MAX_SERVICES).map(|i| of("greedy", i)).collect();
    all.push(of("modest", MAX_SERVICES));
    let (table, left_out) = ServiceTable::new(&all, &nodes(GatePolicy::Bypass));
    let modest = ServiceName::new("modest", "a");
    assert!(table.caught().any(|caught| caught.service == modest));
    assert_eq!(left_out.len(), 1);
    assert_ne!(left_out[0].service, modest);
}
