use super::*;
use time::macros::datetime;

use crate::kubernetes::source::testing::{EDGE, edge, node, ports, revoked, rules, with_kubelet};

fn read(object: &NodeObject) -> NodeFacts {
    NodeFacts::read(object, &rules()).unwrap()
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

#[test]
fn a_tunnelled_node_is_dialled_at_its_internal_addresses_of_both_families() {
    let facts = read(&node(
        "edge-1",
        &[EDGE, ("kubernetes.io/os", "linux")],
        &[
            ("Hostname", "edge-1"),
            ("InternalIP", "10.0.0.1"),
            ("InternalIP", "fd00::1"),
            ("InternalIP", "::ffff:10.0.0.1"),
            ("ExternalIP", "192.0.2.1"),
        ],
    ));
    assert!(facts.tunnelled);
    assert_eq!(facts.addresses, ips(&["10.0.0.1", "fd00::1"]));
    assert_eq!((facts.kubelet_port, facts.problems), (None, vec![]));
}

#[test]
fn either_label_of_openyurt_makes_a_node_tunnelled_and_nothing_else_does() {
    let other = ("openyurt.io/edge-enable-reverseTunnel-client", "true");
    for (labels, tunnelled) in [
        (&[EDGE][..], true),
        (&[other], true),
        (&[("openyurt.io/is-edge-worker", "false"), other], true),
        (&[("openyurt.io/is-edge-worker", "false")], false),
        (&[], false),
    ] {
        let facts = read(&node("n", labels, &[("InternalIP", "10.0.0.1")]));
        assert_eq!(facts.tunnelled, tunnelled, "{labels:?}");
    }
}

#[test]
fn another_node_keeps_all_its_addresses_to_itself_and_is_nobodys_problem() {
    let addresses = [
        ("InternalIP", "10.0.0.1"),
        ("ExternalIP", "192.0.2.1"),
        ("InternalIP", "nonsense"),
    ];
    let facts = read(&with_kubelet("cloud", &[], &addresses, 70_000));
    assert_eq!(facts.addresses, ips(&["10.0.0.1", "192.0.2.1"]));
    assert_eq!(facts.problems, []);
}

#[test]
fn another_node_takes_no_more_than_its_share_and_each_address_in_one_form() {
    let addresses = [
        ("InternalIP", "::ffff:10.0.0.1"),
        ("InternalIP", "10.0.0.1"),
        ("ExternalIP", "127.0.0.1"),
        ("ExternalIP", "::ffff:192.0.2.1"),
    ];
    let facts = read(&node("cloud", &[], &addresses));
    assert_eq!(facts.addresses, ips(&["10.0.0.1", "192.0.2.1"]));

    let many: Vec<String> = (0..1000)
        .map(|n| format!("10.0.{}.{}", n / 250, n % 250))
        .collect();
    let many: Vec<_> = many.iter().map(|ip| ("InternalIP", ip.as_str())).collect();
    let facts = read(&node("cloud", &[], &many));
    assert_eq!(facts.addresses.len(), MOST_ADDRESSES);
    assert_eq!(facts.problems, []);
}

#[test]
fn certificates_from_before_the_node_or_the_operators_word_do_not_count() {
    let created = datetime!(2026-01-01 00:00 UTC);
    let since = |time| Some(Admits::IssuedSince(time));
    let admits = |object: &NodeObject| read(object).node().admits;
    assert_eq!(admits(&edge("edge-1", &["10.0.0.1"])), since(created));
    for (word, time) in [
        ("2026-03-01T12:00:00Z", datetime!(2026-03-01 12:00 UTC)),
        (
            " 2026-03-01T13:00:00+01:00\n",
            datetime!(2026-03-01 12:00 UTC),
        ),
        ("2025-01-01T00:00:00Z", created),
    ] {
        assert_eq!(admits(&revoked("edge-1", word)), since(time), "{word:?}");
    }
}

#[test]
fn a_revocation_that_cannot_be_read_lets_nobody_in_and_is_named() {
    for word in [
        "",
        "yesterday",
        "2026-03-01",
        "1772366400",
        &"9".repeat(1000),
    ] {
        let facts = read(&revoked("edge-1", word));
        assert_eq!(facts.node().admits, Some(Admits::Nobody), "{word:?}");
        let [problem] = &facts.problems[..] else {
            panic!("{:?}", facts.problems)
        };
        let said = problem.to_string();
        assert!(
            said.contains("culvert.dev/not-before") && said.len() < 300,
            "{said}"
        );
        assert_eq!(facts.addresses, ips(&["10.0.0.1"]), "it stays tunnelled");
    }
}

#[test]
fn a_node_named_like_the_servers_is_never_tunnelled() {
    let facts = read(&edge("tunnel-server", &["10.0.0.1"]));
    assert!(!facts.tunnelled);
    assert_eq!(facts.problems, [NodeProblem::ServerName]);
    assert_eq!(facts.addresses, ips(&["10.0.0.1"]), "nobody else gets them");
    let subject = format!("system:node:{SERVER_NODE_NAME}");
    assert_eq!(subject, SERVER_SUBJECT.common_name);
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
    assert_eq!(facts.addresses, ips(&["10.0.0.1"]));
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
    assert_eq!(
        read(&edge("e", &["::1"])).problems[1],
        NodeProblem::NoAddress
    );
    assert_eq!(read(&edge("e", &[])).problems, [NodeProblem::NoAddress]);
}

#[test]
fn no_node_takes_more_than_its_share_of_the_table() {
    let many: Vec<String> = (0..1000)
        .map(|n| format!("10.0.{}.{}", n / 250, n % 250))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let facts = read(&edge("edge-1", &many));
    assert_eq!(facts.addresses.len(), MOST_ADDRESSES);
    assert_eq!(facts.problems, [NodeProblem::TooManyAddresses { most: 64 }]);
    let facts = read(&edge("edge-1", &["x"; 1000]));
    assert_eq!(facts.problems.len(), MOST_ADDRESSES + 1);
}

#[test]
fn a_kubelet_on_a_port_of_its_own_is_reached_there() {
    let kubelet = |port| {
        read(&with_kubelet(
            "e",
            &[EDGE],
            &[("InternalIP", "10.0.0.1")],
            port,
        ))
    };
    assert_eq!(kubelet(10250).kubelet_port, None);
    assert_eq!(kubelet(0).kubelet_port, None);
    assert_eq!(kubelet(0).problems, []);
    let own = kubelet(10350);
    assert_eq!(own.node().extra_ports, ports(&[10350]));
    for port in [-1, 65_536] {
        let facts = kubelet(port);
        assert_eq!(facts.kubelet_port, None);
        let port = i32::try_from(port).unwrap();
        assert_eq!(facts.problems, [NodeProblem::InvalidKubeletPort(port)]);
    }
    let facts = kubelet(10270);
    assert_eq!(facts.kubelet_port, None);
    assert!(facts.problems[0].to_string().contains("--redirect-port"));
}

#[test]
fn no_node_takes_what_the_control_plane_sends_to_its_api_server_or_etcd() {
    for port in [22, 443, 2379, 6443] {
        let facts = read(&with_kubelet(
            "e",
            &[EDGE],
            &[("InternalIP", "10.0.0.1")],
            port,
        ));
        assert_eq!(facts.kubelet_port, None, "{port}");
        let problem = facts.problems[0].to_string();
        assert!(problem.contains("no kubelet has"), "{problem}");
    }
    let facts = read(&edge("e", &["10.96.0.1", "10.0.0.1"]));
    assert_eq!(facts.addresses, ips(&["10.0.0.1"]));
    let problem = facts.problems[0].to_string();
    assert!(
        problem.contains("10.96.0.1 is the API server's"),
        "{problem}"
    );
}

#[test]
fn a_name_that_no_node_can_have_is_an_error_and_so_is_none() {
    for name in ["", "UPPER", "a/b"] {
        assert!(NodeFacts::read(&edge(name, &[]), &rules()).is_err());
    }
}

#[test]
fn a_node_that_has_just_been_made_has_neither_status_nor_labels() {
    let object: NodeObject =
        serde_json::from_str(r#"{"metadata":{"name":"new","resourceVersion":"1"}}"#).unwrap();
    let facts = read(&object);
    assert_eq!((facts.tunnelled, facts.addresses), (false, vec![]));
}
