use time::macros::datetime;

use super::*;
use crate::{
    kubernetes::source::{
        node::NodeObject,
        testing::{EDGE, edge, ports, revoked, rules, with_kubelet},
    },
    model::{AddressRanges, NodeNetwork},
};

fn judged_by(rules: &Rules, pods: &[&str], had: bool, object: &NodeObject) -> Judged {
    let cluster = ClusterAddresses::of(&["10.96.0.1", "192.0.2.6"], &["10.96.0.10"]);
    let pods: AddressRanges = pods.iter().map(|range| range.parse().unwrap()).collect();
    let judge = Judge {
        rules,
        cluster: &cluster,
        is_pods: &|address| pods.contains(address),
        had: &|_, _| had,
    };
    judge.tunnelled(&NodeFacts::read(object).unwrap())
}

fn judged(object: &NodeObject) -> Judged {
    judged_by(&rules(), &[], false, object)
}

fn problems(judged: &Judged) -> Vec<String> {
    judged.problems.iter().map(ToString::to_string).collect()
}

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|ip| ip.parse().unwrap()).collect()
}

#[test]
fn no_node_takes_the_api_servers_addresses_nor_a_services() {
    let taken = ["10.96.0.1", "192.0.2.6", "10.96.0.10", "10.0.0.1"];
    let judged = judged(&edge("e", &taken));
    assert_eq!(judged.node.addresses, ips(&["10.0.0.1"]));
    let problems = problems(&judged);
    assert!(
        problems[0].contains("10.96.0.1 is the API server's"),
        "{problems:?}"
    );
    assert!(
        problems[1].contains("192.0.2.6 is the API server's"),
        "{problems:?}"
    );
    assert!(
        problems[2].contains("10.96.0.10 is a Service's ClusterIP"),
        "{problems:?}"
    );
    assert_eq!(judged.outside, ips(&[]), "no certificate names them");
}

#[test]
fn an_address_outside_of_the_nodes_networks_is_left_out_and_the_flag_is_named() {
    let networks = ["10.78.0.0/16", "fd00:78::/64"];
    let networks = networks.map(|network| network.parse::<NodeNetwork>().unwrap());
    let rules = Rules {
        node_networks: networks.into_iter().collect(),
        ..rules()
    };
    let object = edge("e", &["10.78.0.11", "fd00:78::11", "203.0.113.7"]);
    let judged = judged_by(&rules, &[], true, &object);
    assert_eq!(judged.node.addresses, ips(&["10.78.0.11", "fd00:78::11"]));
    let problems = problems(&judged);
    assert!(
        problems[0].contains("203.0.113.7") && problems[0].contains("--node-networks"),
        "{problems:?}"
    );
    assert_eq!(
        judged.outside,
        ips(&["203.0.113.7"]),
        "its agent is not locked out"
    );

    let judged = judged_by(&rules, &[], true, &edge("e", &["10.79.0.1"]));
    assert_eq!(judged.problems[1], NodeProblem::NoAddress);
}

#[test]
fn a_pods_address_is_no_nodes_unless_it_was_before_there_were_pods() {
    let object = edge("e", &["10.244.3.9", "10.0.0.1"]);
    let judged = judged_by(&rules(), &["10.244.3.0/24"], false, &object);
    assert_eq!(judged.node.addresses, ips(&["10.0.0.1"]));
    assert!(problems(&judged)[0].contains("in a range of pods"));
    let judged = judged_by(&rules(), &["10.244.3.0/24"], true, &object);
    assert_eq!(judged.node.addresses.len(), 2);
}

#[test]
fn a_kubelet_is_reached_on_the_ports_that_the_operator_names_and_on_no_other() {
    let rules = Rules {
        kubelet_ports: ports(&[10250, 10350]),
        ..rules()
    };
    let kubelet = |port| {
        let object = with_kubelet("e", &[EDGE], &[("InternalIP", "10.0.0.1")], port);
        judged_by(&rules, &[], false, &object)
    };
    for port in [0, 10250] {
        let judged = kubelet(port);
        assert_eq!(
            (judged.node.extra_ports, judged.problems),
            (ports(&[]), vec![])
        );
    }
    assert_eq!(kubelet(10350).node.extra_ports, ports(&[10350]));
    for port in [22, 2379, 6443, 8443, 10270] {
        let judged = kubelet(port);
        assert_eq!(judged.node.extra_ports, ports(&[]), "{port}");
        let problem = &problems(&judged)[0];
        assert!(problem.contains("none of --kubelet-ports"), "{problem}");
    }
    for port in [-1, 65_536] {
        let problem = NodeProblem::InvalidKubeletPort(i32::try_from(port).unwrap());
        assert_eq!(kubelet(port).problems, [problem]);
    }
}

#[test]
fn a_node_without_any_usable_address_says_so() {
    assert_eq!(judged(&edge("e", &[])).problems, [NodeProblem::NoAddress]);
    assert_eq!(
        judged(&edge("e", &["::1"])).problems[1],
        NodeProblem::NoAddress
    );
}

#[test]
fn certificates_from_before_the_node_or_the_operators_word_do_not_count() {
    let created = datetime!(2026-01-01 00:00 UTC);
    let since = |time| Some(Admits::IssuedSince(time));
    let admits = |object: &NodeObject| judged(object).node.admits;
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
        let judged = judged(&revoked("edge-1", word));
        assert_eq!(judged.node.admits, Some(Admits::Nobody), "{word:?}");
        let [problem] = &judged.problems[..] else {
            panic!("{:?}", judged.problems)
        };
        let said = problem.to_string();
        assert!(
            said.contains("culvert.dev/not-before") && said.len() < 300,
            "{said}"
        );
        assert_eq!(
            judged.node.addresses,
            ips(&["10.0.0.1"]),
            "it stays tunnelled"
        );
    }
}
