//! What the tests of the source share.

use std::net::IpAddr;

use kube::runtime::watcher::Event;
use serde_json::json;

use super::{index::Rules, node::NodeObject};
use crate::model::{NodeName, NodeNetworks, PortSet, TunnelPort};

pub(super) const EDGE: (&str, &str) = ("openyurt.io/is-edge-worker", "true");

pub(super) fn ports(numbers: &[u16]) -> PortSet {
    let port = |number: &u16| TunnelPort::new(*number).unwrap();
    numbers.iter().map(port).collect()
}

/// The two usual labels, and 10270 and 10262 as the server's own ports.
pub(super) fn rules() -> Rules {
    Rules {
        selectors: [
            "openyurt.io/is-edge-worker=true",
            "openyurt.io/edge-enable-reverseTunnel-client=true",
        ]
        .map(|selector| selector.parse().unwrap())
        .to_vec(),
        ports_config: "kube-system/ports".parse().unwrap(),
        ports: PortSet::new(),
        reserved: ports(&[10262, 10270]),
        node_networks: NodeNetworks::default(),
        kubelet_ports: ports(&[10250]),
    }
}

/// A Node as the API server writes it, with much that is not read.
pub(super) fn node(name: &str, labels: &[(&str, &str)], addresses: &[(&str, &str)]) -> NodeObject {
    with_kubelet(name, labels, addresses, 10250)
}

pub(super) fn with_kubelet(
    name: &str,
    labels: &[(&str, &str)],
    addresses: &[(&str, &str)],
    port: i64,
) -> NodeObject {
    let addresses = addresses
        .iter()
        .map(|(kind, address)| json!({ "type": kind, "address": address }));
    let labels: std::collections::BTreeMap<_, _> = labels.iter().copied().collect();
    serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "uid": "7d1c5f0e-0b0a-4a58-9f0e-1f6a3f1f0a11",
            "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": labels,
            "managedFields": [{ "manager": "kubelet", "operation": "Update" }],
        },
        "spec": { "taints": [] },
        "status": {
            "addresses": addresses.collect::<Vec<_>>(),
            "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
            "conditions": [{ "type": "Ready", "status": "False" }],
            "images": [{ "names": ["a"], "sizeBytes": 1 }],
        },
    }))
    .unwrap()
}

/// The same, whose pods have addresses of this range.
pub(super) fn with_pods(node: NodeObject, range: &str) -> NodeObject {
    node.with_pod_range(range)
}

/// Nobody has a session.
pub(super) fn nobody(_: &NodeName, _: IpAddr) -> bool {
    false
}

/// A tunnelled node with these addresses.
pub(super) fn edge(name: &str, addresses: &[&str]) -> NodeObject {
    node(name, &[EDGE], &internal(addresses))
}

/// The same, which an operator has annotated.
pub(super) fn revoked(name: &str, not_before: &str) -> NodeObject {
    let mut object = edge(name, &["10.0.0.1"]);
    object.annotate(not_before);
    object
}

/// A node that is not tunnelled.
pub(super) fn cloud(name: &str, addresses: &[&str]) -> NodeObject {
    node(name, &[], &internal(addresses))
}

/// The events of a list.
pub(in crate::kubernetes) fn listed<K>(objects: impl IntoIterator<Item = K>) -> Vec<Event<K>> {
    let objects = objects.into_iter().map(Event::InitApply);
    let mut events = vec![Event::Init];
    events.extend(objects);
    events.push(Event::InitDone);
    events
}

fn internal<'a>(addresses: &[&'a str]) -> Vec<(&'static str, &'a str)> {
    let typed = addresses.iter().map(|address| ("InternalIP", *address));
    typed.collect()
}
