use serde_json::{Value, json};

use super::*;
use crate::{
    kubernetes::source::testing::listed,
    model::{Node, PortSet, TunnelPort},
};

fn service(name: &str, spec: &Value) -> ServiceObject {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": name, "namespace": "monitoring", "uid": name, "resourceVersion": "1",
            "labels": { "k8s-app": "kubelet" },
            "managedFields": [{ "manager": "kubectl", "operation": "Update" }],
        },
        "spec": spec,
        "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.9" }] } },
    }))
    .unwrap()
}

/// A Service with one port, as most are.
fn kubelet(name: &str) -> ServiceObject {
    let ports =
        json!([{ "name": "https-metrics", "port": 443, "targetPort": 10250, "protocol": "TCP" }]);
    service(
        name,
        &json!({
            "type": "ClusterIP", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"], "ports": ports,
            "externalIPs": ["192.0.2.7"], "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
        }),
    )
}

fn slice(name: &str, service: &str, endpoints: impl IntoIterator<Item = Value>) -> SliceObject {
    let endpoints: Vec<_> = endpoints.into_iter().collect();
    serde_json::from_value(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": name, "namespace": "monitoring", "uid": name, "resourceVersion": "1",
            "labels": { "kubernetes.io/service-name": service },
        },
        "endpoints": endpoints,
        "ports": [{ "name": "https-metrics", "port": 10250, "protocol": "TCP" }],
    }))
    .unwrap()
}

fn ready(address: &str) -> Value {
    json!({
        "addresses": [address], "conditions": { "ready": true }, "nodeName": "edge-1",
        "targetRef": { "kind": "Node", "name": "edge-1" },
    })
}

fn conditions(address: &str, [ready, serving, terminating]: [bool; 3]) -> Value {
    let conditions = json!({ "ready": ready, "serving": serving, "terminating": terminating });
    json!({ "addresses": [address], "conditions": conditions })
}

fn nodes(addresses: &[&str]) -> Snapshot {
    let node = Node {
        name: "edge-1".parse().unwrap(),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        extra_ports: PortSet::new(),
        closed_gate: None,
        admits: None,
    };
    Snapshot::new([node], [TunnelPort::KUBELET].into())
}

/// An index that has heard of all this, with one edge node at 10.78.0.11 and `fd00:78::11`.
fn index(
    services: impl IntoIterator<Item = ServiceObject>,
    slices: impl IntoIterator<Item = SliceObject>,
) -> ServiceIndex {
    let mut index = ServiceIndex::new();
    index.apply_nodes(&nodes(&["10.78.0.11", "fd00:78::11"]));
    for event in listed(services) {
        index.apply_service(event);
    }
    assert!(!index.is_listed());
    for event in listed(slices) {
        index.apply_slice(event);
    }
    assert!(index.is_listed());
    index
}

/// What clients dial, and where it leads.
fn found(index: &mut ServiceIndex) -> Option<Vec<(String, Vec<String>)>> {
    let all = index.update()?;
    let text = |at: &SocketAddr| at.to_string();
    let found = all.iter().map(|one| {
        let endpoints = one.endpoints.iter().map(text).collect();
        (one.cluster.to_string(), endpoints)
    });
    Some(found.collect())
}

fn leads(cluster: &str, endpoints: &[&str]) -> Vec<(String, Vec<String>)> {
    let endpoints = endpoints.iter().map(ToString::to_string).collect();
    vec![(cluster.to_owned(), endpoints)]
}

#[test]
fn a_service_with_a_node_among_its_endpoints_is_told_with_all_of_them() {
    let slices = [
        slice(
            "kubelet-a",
            "kubelet",
            [ready("10.78.0.11"), ready("10.0.0.1")],
        ),
        slice(
            "kubelet-b",
            "kubelet",
            [ready("10.0.0.2"), ready("10.0.0.1")],
        ),
    ];
    let mut index = index([kubelet("kubelet")], slices);
    let all = ["10.0.0.1:10250", "10.0.0.2:10250", "10.78.0.11:10250"];
    assert_eq!(found(&mut index), Some(leads("10.96.0.5:443", &all)));
    assert_eq!(found(&mut index), None, "nothing has changed");
}

#[test]
fn services_that_kube_proxy_would_not_lead_to_a_node_are_left_alone() {
    let port = json!([{ "name": "https-metrics", "port": 443 }]);
    for (why, spec) in [
        (
            "headless",
            json!({ "clusterIP": "None", "clusterIPs": ["None"], "ports": port }),
        ),
        (
            "another name",
            json!({ "type": "ExternalName", "externalName": "a.example", "ports": port }),
        ),
        (
            "this machine's endpoints",
            json!({
                "clusterIP": "10.96.0.5", "ports": port, "internalTrafficPolicy": "Local",
            }),
        ),
        ("no port", json!({ "clusterIP": "10.96.0.5" })),
        (
            "UDP",
            json!({
                "clusterIP": "10.96.0.5",
                "ports": [{ "name": "https-metrics", "port": 443, "protocol": "UDP" }],
            }),
        ),
        (
            "another port's name",
            json!({ "clusterIP": "10.96.0.5", "ports": [{ "port": 443 }] }),
        ),
        (
            "the other family",
            json!({ "clusterIP": "fd00:96::5", "ports": port }),
        ),
    ] {
        let slices = [slice("kubelet-a", "kubelet", [ready("10.78.0.11")])];
        let mut index = index([service("kubelet", &spec)], slices);
        assert_eq!(found(&mut index), None, "{why}");
    }
    let hints = [json!({
        "addresses": ["10.78.0.11"], "conditions": {}, "hints": { "forZones": [{ "name": "a" }] },
    })];
    let mut index = index([kubelet("kubelet")], [slice("kubelet-a", "kubelet", hints)]);
    assert_eq!(found(&mut index), None, "for some zones");
}

#[test]
fn an_edge_nodes_pod_gets_no_share_of_a_service_of_other_pods() {
    let port = json!([{ "name": "https-metrics", "port": 443 }]);
    let spec = json!({
        "clusterIP": "10.96.0.5", "ports": port, "selector": { "k8s-app": "metrics-server" },
    });
    let of = |addresses: &[&str]| {
        let endpoints = addresses.iter().map(|address| ready(address));
        let slices = [slice("metrics-server-a", "metrics-server", endpoints)];
        found(&mut index([service("metrics-server", &spec)], slices))
    };
    assert_eq!(of(&["10.78.0.11", "10.244.0.9"]), None);
    let alone = Some(leads("10.96.0.5:443", &["10.78.0.11:10250"]));
    assert_eq!(of(&["10.78.0.11"]), alone, "all of them are nodes");
}

#[test]
fn the_api_servers_own_service_is_never_told() {
    let mut object = kubelet("kubernetes");
    kube::Resource::meta_mut(&mut object).namespace = Some("default".to_owned());
    let mut slice = slice("kubernetes", "kubernetes", [ready("10.78.0.11")]);
    slice.service = Some(ServiceName::new("default", "kubernetes"));
    assert_eq!(found(&mut index([object], [slice])), None);
}

#[test]
fn families_and_ports_lead_to_their_own_endpoints() {
    let ports = json!([
        { "name": "https-metrics", "port": 443 },
        { "name": "http-metrics", "port": 80 },
    ]);
    let spec = json!({
        "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00:96::5"], "ports": ports,
        "sessionAffinity": "ClientIP",
    });
    let mut v6 = slice("kubelet-b", "kubelet", [ready("fd00:78::11")]);
    v6.facts.ports = [
        (10255, "http-metrics".into()),
        (10250, "https-metrics".into()),
    ]
    .into();
    let slices = [slice("kubelet-a", "kubelet", [ready("10.78.0.11")]), v6];
    let mut index = index([service("kubelet", &spec)], slices);
    let all = index.update().unwrap();
    assert!(all.iter().all(|one| one.affinity));
    let all = all
        .iter()
        .map(|one| (one.cluster.to_string(), one.endpoints[0].to_string()));
    let expected = [
        ("10.96.0.5:443", "10.78.0.11:10250"),
        ("[fd00:96::5]:80", "[fd00:78::11]:10255"),
        ("[fd00:96::5]:443", "[fd00:78::11]:10250"),
    ];
    let expected = expected.map(|(cluster, at)| (cluster.to_owned(), at.to_owned()));
    assert_eq!(all.collect::<Vec<_>>(), expected);
}

/// [`CategorizeEndpoints`](https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/proxy/topology.go).
#[test]
fn endpoints_that_are_not_ready_get_nothing_and_those_that_leave_only_if_nobody_else_is_there() {
    const READY: [bool; 3] = [true, true, false];
    const LEAVING: [bool; 3] = [false, true, true];
    const GONE: [bool; 3] = [false, false, true];
    const UNREADY: [bool; 3] = [false, false, false];
    // Serves, but was not ready before anybody stopped it.
    const SERVING: [bool; 3] = [false, true, false];
    let at = ["10.78.0.11:10250", "10.78.0.12:10250"];
    for (states, leads_to) in [
        ([READY, READY], &at[..]),
        ([READY, UNREADY], &at[..1]),
        ([READY, LEAVING], &at[..1]),
        ([LEAVING, LEAVING], &at[..]),
        ([LEAVING, UNREADY], &at[..1]),
        ([LEAVING, GONE], &at[..1]),
        ([UNREADY, SERVING], &[]),
        ([GONE, GONE], &[]),
    ] {
        let [one, other] = states;
        let endpoints = [
            conditions("10.78.0.11", one),
            conditions("10.78.0.12", other),
        ];
        let mut index = index([kubelet("kubelet")], [slice("a", "kubelet", endpoints)]);
        index.apply_nodes(&nodes(&["10.78.0.11", "10.78.0.12"]));
        let expected = (!leads_to.is_empty()).then(|| leads("10.96.0.5:443", leads_to));
        assert_eq!(found(&mut index), expected, "{states:?}");
    }
}

#[test]
fn what_is_not_said_of_an_endpoint_makes_it_ready_and_only_its_first_address_counts() {
    let endpoints = [
        json!({ "addresses": ["10.78.0.11", "10.78.0.99"] }),
        json!({ "addresses": ["127.0.0.1"] }),
        json!({ "addresses": ["169.254.169.254"] }),
    ];
    let mut index = index([kubelet("kubelet")], [slice("a", "kubelet", endpoints)]);
    assert_eq!(
        found(&mut index),
        Some(leads("10.96.0.5:443", &["10.78.0.11:10250"]))
    );
}

#[test]
fn changes_of_services_slices_and_nodes_are_followed() {
    let mut index = index([kubelet("kubelet")], []);
    assert_eq!(found(&mut index), None);
    let a = || slice("a", "kubelet", [ready("10.78.0.11")]);
    assert!(index.apply_slice(Event::Apply(a())));
    let one = Some(leads("10.96.0.5:443", &["10.78.0.11:10250"]));
    assert_eq!(found(&mut index), one);
    assert!(!index.apply_slice(Event::Apply(a())), "the same again");

    // Another slice of it, then one that becomes another Service's.
    index.apply_slice(Event::Apply(slice("b", "kubelet", [ready("10.0.0.1")])));
    let both = Some(leads(
        "10.96.0.5:443",
        &["10.0.0.1:10250", "10.78.0.11:10250"],
    ));
    assert_eq!(found(&mut index), both);
    index.apply_slice(Event::Apply(slice("b", "other", [ready("10.0.0.1")])));
    assert_eq!(found(&mut index), one);
    index.apply_slice(Event::Delete(a()));
    assert_eq!(found(&mut index), Some(vec![]));

    // Whoever was no node may become one, and the other way round.
    index.apply_slice(Event::Apply(slice("a", "kubelet", [ready("10.78.0.12")])));
    assert_eq!(found(&mut index), None);
    assert!(index.apply_nodes(&nodes(&["10.78.0.12"])));
    assert_eq!(
        found(&mut index),
        Some(leads("10.96.0.5:443", &["10.78.0.12:10250"]))
    );
    assert!(!index.apply_nodes(&nodes(&["10.78.0.12"])));
    index.apply_nodes(&nodes(&["10.78.0.11"]));
    assert_eq!(found(&mut index), Some(vec![]));
    index.apply_nodes(&nodes(&["10.78.0.12"]));
    assert!(found(&mut index).is_some());
    index.apply_service(Event::Delete(kubelet("kubelet")));
    assert_eq!(found(&mut index), Some(vec![]));
}

#[test]
fn a_list_counts_once_it_is_whole() {
    let a = || slice("a", "kubelet", [ready("10.78.0.11")]);
    let mut index = index([kubelet("kubelet")], [a()]);
    let one = Some(leads("10.96.0.5:443", &["10.78.0.11:10250"]));
    assert_eq!(found(&mut index), one);
    index.apply_slice(Event::Init);
    assert_eq!(found(&mut index), None, "not gone while a list comes in");
    index.apply_slice(Event::InitApply(slice(
        "b",
        "kubelet",
        [ready("10.78.0.11")],
    )));
    index.apply_slice(Event::InitDone);
    assert_eq!(found(&mut index), None, "another slice says the same");
    for event in listed([]) {
        index.apply_slice(event);
    }
    assert_eq!(found(&mut index), Some(vec![]));
}

/// Ten thousand endpoints in slices of a thousand, as prometheus-operator writes them, beside a hundred thousand that
/// are pods: what is kept is small, and one change costs one Service's walk.
#[test]
fn ten_thousand_endpoints_of_one_service_among_a_hundred_thousand_others_are_followed() {
    let address = |i: u32| std::net::Ipv4Addr::from_bits(0x0a4e_0000 + i).to_string();
    let kubelets = (0..10).map(|number| {
        let endpoints = (0..1000).map(|i| ready(&address(number * 1000 + i)));
        slice(&format!("kubelet-{number}"), "kubelet", endpoints)
    });
    let pods = (0..1000).map(|number| {
        let endpoints =
            (0..100).map(|i| ready(&format!("10.{}.{}.{i}", 128 + number / 250, number % 250)));
        slice(
            &format!("pods-{number}"),
            &format!("pods-{number}"),
            endpoints,
        )
    });
    let services = (0..1000).map(|number| kubelet(&format!("pods-{number}")));
    let mut index = index(
        services.chain([kubelet("kubelet")]),
        kubelets.chain(pods).collect::<Vec<_>>(),
    );
    let all = index.update().unwrap();
    assert_eq!((all.len(), all[0].endpoints.len()), (1, 10_000));
    let endpoint = size_of::<super::super::objects::EndpointFacts>();
    assert!(endpoint <= 20, "{endpoint} bytes for each endpoint");
    let smaller = slice("kubelet-0", "kubelet", [ready(&address(11))]);
    assert!(index.apply_slice(Event::Apply(smaller)));
    assert_eq!(index.changed.len(), 1);
    let first = "10.78.0.11:10250".parse().unwrap();
    let all = index.update().unwrap();
    assert_eq!(
        (all[0].endpoints.len(), all[0].endpoints[0]),
        (9_001, first)
    );
}
