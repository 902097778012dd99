use super::*;
use crate::kubernetes::source::testing::{EDGE, edge, node, with_kubelet, with_pods};

fn read(object: &NodeObject) -> NodeFacts {
    NodeFacts::read(object).unwrap()
}

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|ip| ip.parse().unwrap()).collect()
}

#[test]
fn a_node_says_its_addresses_labels_port_and_pods_range() {
    let object = with_kubelet(
        "edge-1",
        &[EDGE, ("kubernetes.io/os", "linux")],
        &[
            ("Hostname", "edge-1"),
            ("InternalIP", "10.0.0.1"),
            ("InternalIP", "fd00::1"),
            ("InternalIP", "::ffff:10.0.0.1"),
            ("ExternalIP", "::ffff:192.0.2.1"),
            ("ExternalIP", "127.0.0.1"),
        ],
        10350,
    );
    let facts = read(&with_pods(object, "10.244.1.0/24"));
    assert_eq!(facts.internal, ips(&["10.0.0.1", "fd00::1"]));
    assert_eq!(facts.external, ips(&["192.0.2.1"]));
    assert_eq!(facts.labels.len(), 2);
    assert_eq!(facts.pod_ranges, ["10.244.1.0/24".parse().unwrap()]);
    assert_eq!((facts.kubelet_port, facts.problems), (10350, vec![]));
}

#[test]
fn addresses_that_lead_nowhere_are_left_out_and_named() {
    let facts = read(&edge(
        "edge-1",
        &[
            "127.0.0.1",
            "10.0.0.300",
            "::",
            "ff02::1",
            "fe80::1",
            "10.0.0.1",
        ],
    ));
    assert_eq!(facts.internal, ips(&["10.0.0.1"]));
    let problems: Vec<String> = facts.problems.iter().map(ToString::to_string).collect();
    for (problem, words) in problems.iter().zip([
        "127.0.0.1 is a loopback address",
        "\"10.0.0.300\" is not an IP address",
        ":: is the unspecified address",
        "ff02::1 is a multicast address",
        "fe80::1 is a link-local address",
    ]) {
        assert!(problem.contains(words), "{problem} lacks {words}");
    }
    assert_eq!(problems.len(), 5);
}

#[test]
fn no_node_takes_more_than_its_share_of_the_table() {
    let many: Vec<String> = (0..1000)
        .map(|n| format!("10.0.{}.{}", n / 250, n % 250))
        .collect();
    let typed = many
        .iter()
        .flat_map(|ip| [("InternalIP", ip.as_str()), ("ExternalIP", ip)]);
    let facts = read(&node("edge-1", &[EDGE], &typed.collect::<Vec<_>>()));
    assert_eq!(facts.internal.len(), MOST_ADDRESSES);
    assert_eq!(facts.external.len(), MOST_ADDRESSES);
    assert_eq!(facts.problems, [NodeProblem::TooManyAddresses { most: 64 }]);
    let facts = read(&edge("edge-1", &["x"; 1000]));
    assert_eq!(facts.problems.len(), MOST_ADDRESSES);
}

#[test]
fn a_name_that_no_node_can_have_is_an_error_and_so_is_none() {
    for name in ["", "UPPER", "a/b"] {
        assert!(NodeFacts::read(&edge(name, &[])).is_err());
    }
}

#[test]
fn a_node_that_has_just_been_made_has_neither_status_nor_labels() {
    let object: NodeObject =
        serde_json::from_str(r#"{"metadata":{"name":"new","resourceVersion":"1"}}"#).unwrap();
    let facts = read(&object);
    assert!(facts.labels.is_empty() && facts.internal.is_empty());
}
