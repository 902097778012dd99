use serde_json::{Value, json};

use super::*;
use crate::kubernetes::services::testing::{name, service, slices};

fn dialled(kind: &str, more: &Value, endpoints: &[(&str, &str, bool)]) -> Vec<String> {
    let service = service(kind, more);
    let reach = reach(&name(), Some(&service), &slices(endpoints));
    reach.addresses.iter().map(ToString::to_string).collect()
}

fn problems(kind: &str, more: &Value) -> Vec<NoServerAddress> {
    reach(&name(), Some(&service(kind, more)), &slices(&[])).problems
}

const NODES: &[(&str, &str, bool)] = &[("m1", "10.77.0.1", true), ("m2", "10.77.0.2", true)];

#[test]
fn a_node_port_is_dialled_on_every_node_with_a_server() {
    let v6 = [NODES, &[("m1", "fd00:77::1", true)]].concat();
    assert_eq!(
        dialled("NodePort", &json!({}), &v6),
        ["10.77.0.1:31008", "10.77.0.2:31008", "[fd00:77::1]:31008"]
    );
}

#[test]
fn nodes_whose_server_is_not_ready_are_dialled_only_if_no_other_is() {
    let one = [("m1", "10.77.0.1", true), ("m2", "10.77.0.2", false)];
    assert_eq!(dialled("NodePort", &json!({}), &one), ["10.77.0.1:31008"]);
    let none = [("m1", "10.77.0.1", false), ("m2", "10.77.0.2", false)];
    assert_eq!(dialled("NodePort", &json!({}), &none).len(), 2);
}

#[test]
fn a_load_balancer_is_dialled_by_every_address_and_name_that_it_has() {
    let more = json!({"ingress": [{"ip": "203.0.113.7"}, {"hostname": "lb.example"}]});
    assert_eq!(
        dialled("LoadBalancer", &more, NODES),
        ["203.0.113.7:10262", "lb.example:10262"]
    );
}

#[test]
fn a_load_balancer_without_address_has_node_ports_if_any() {
    let nodes = ["10.77.0.1:31008", "10.77.0.2:31008"];
    assert_eq!(dialled("LoadBalancer", &json!({}), NODES), nodes);
    let none = json!({"spec": {"ports": [{"name": "tcp", "port": 10262}]}});
    assert_eq!(dialled("LoadBalancer", &none, NODES), [""; 0]);
    assert_eq!(
        problems("LoadBalancer", &none),
        [NoServerAddress::NoIngress(name())]
    );
}

#[test]
fn the_annotation_counts_for_every_type_with_its_own_port() {
    let more = json!({"annotations": {
        "x-tunnel-server-external-addr": "tunnel.example:443, 203.0.113.9:8443,[2001:db8::9]:1"
    }});
    let annotated = ["tunnel.example:443", "203.0.113.9:8443", "[2001:db8::9]:1"];
    assert_eq!(dialled("ClusterIP", &more, NODES), annotated);
    let all = dialled("NodePort", &more, NODES);
    assert_eq!(all[..3], annotated);
    assert_eq!(all[3..], ["10.77.0.1:31008", "10.77.0.2:31008"]);
}

#[test]
fn what_the_annotation_should_not_list_is_told_and_the_rest_is_used() {
    let more = json!({"annotations": {
        "x-tunnel-server-external-addr": "a.example:x,b.example:443"
    }});
    assert_eq!(dialled("ClusterIP", &more, &[]), ["b.example:443"]);
    let told = problems("ClusterIP", &more)[0].to_string();
    assert!(told.contains("kube-system/x-tunnel-server-svc"), "{told}");
    assert!(told.contains("\"a.example:x\""), "{told}");
}

#[test]
fn the_port_is_the_one_called_tcp_or_the_only_one() {
    let two = json!({"spec": {"ports": [
        {"name": "https", "port": 10263, "nodePort": 31009},
        {"name": "tcp", "port": 10262, "nodePort": 31008},
    ]}});
    assert_eq!(dialled("NodePort", &two, &NODES[..1]), ["10.77.0.1:31008"]);
    let unnamed = json!({"spec": {"ports": [{"port": 10262, "nodePort": 31010}]}});
    assert_eq!(
        dialled("NodePort", &unnamed, &NODES[..1]),
        ["10.77.0.1:31010"]
    );
    let others = json!({"spec": {"ports": [
        {"name": "a", "port": 1, "nodePort": 31001},
        {"name": "b", "port": 2, "nodePort": 31002},
    ]}});
    assert_eq!(
        problems("NodePort", &others),
        [NoServerAddress::NoPort(name())]
    );
}

#[test]
fn what_is_missing_is_said_with_the_name_of_the_service() {
    let nothing = reach(&name(), None, &slices(&[])).problems;
    assert_eq!(nothing, [NoServerAddress::NoService(name())]);
    assert_eq!(
        problems("NodePort", &json!({})),
        [NoServerAddress::NoEndpoints(name())]
    );
    let told = problems("ClusterIP", &json!({}))[0].to_string();
    for part in [
        "kube-system/x-tunnel-server-svc",
        "ClusterIP",
        "x-tunnel-server-external-addr",
    ] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
}
