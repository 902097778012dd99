//! The DNS records of the nodes, as a file of hosts: what Yurt-Tunnel's `CoreDNS` reads.
//!
//! ```text
//!  10.77.0.1\tcontrol-plane     a Node that is reached directly: its own address
//!  10.96.0.7\tedge-1            one that is tunnelled: the servers' Service, on the port that it has at the node
//! ```
//! Lines are sorted as texts, and the last one has no end, as Yurt-Tunnel writes them
//! (<https://github.com/openyurtio/openyurt/blob/v1.5.0/pkg/yurttunnel/trafficforward/dns/util.go>).

use std::net::IpAddr;

use imbl::OrdMap;

use crate::{kubernetes::source::NodePlace, model::NodeName};

/// The records, and whose there are none.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) text: String,
    pub(super) count: usize,
    /// Nodes with the name of a Service or a pod: whoever asks for that must not be led to a node.
    pub(super) reserved: Vec<NodeName>,
}

impl Records {
    /// Sends clients of tunnelled nodes to these addresses, of which the first of each family counts, as of
    /// a Node's own.
    pub(super) fn of(nodes: &OrdMap<NodeName, NodePlace>, service: &[IpAddr]) -> Self {
        let mut reserved = Vec::new();
        let mut lines = Vec::with_capacity(nodes.len());
        for (name, place) in nodes {
            if is_reserved(name) {
                reserved.push(name.clone());
                continue;
            }
            let addresses = match place {
                NodePlace::Tunnelled => service,
                NodePlace::Direct(own) => own,
            };
            let line = |address: IpAddr| format!("{address}\t{name}");
            lines.extend(first_of_each_family(addresses).map(line));
        }
        lines.sort_unstable();
        Self {
            text: lines.join("\n"),
            count: lines.len(),
            reserved,
        }
    }
}

/// Whether any of them is reached by the Service.
pub(super) fn any_tunnelled(nodes: &OrdMap<NodeName, NodePlace>) -> bool {
    nodes.values().any(|place| *place == NodePlace::Tunnelled)
}

fn first_of_each_family(addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
    let v4 = addresses.iter().find(|address| address.is_ipv4());
    let v6 = addresses.iter().find(|address| address.is_ipv6());
    [v4, v6].into_iter().flatten().copied()
}

/// `CoreDNS` looks for hosts before it asks the cluster, so a kubelet that may choose its name could else be
/// `kubernetes.default.svc.cluster.local`.
fn is_reserved(name: &NodeName) -> bool {
    let mut domains = name.as_str().split('.').skip(1);
    domains.any(|label| matches!(label, "svc" | "pod"))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Listed = (NodeName, NodePlace);

    fn edge(name: &str) -> Listed {
        (name.parse().unwrap(), NodePlace::Tunnelled)
    }

    fn cloud(name: &str, addresses: &[&str]) -> Listed {
        (name.parse().unwrap(), NodePlace::Direct(ips(addresses)))
    }

    fn records(nodes: impl IntoIterator<Item = Listed>, service: &[&str]) -> Records {
        Records::of(&nodes.into_iter().collect(), &ips(service))
    }

    fn ips(addresses: &[&str]) -> Vec<IpAddr> {
        addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect()
    }

    #[test]
    fn edge_nodes_are_at_the_service_and_others_at_their_own_addresses() {
        let (v4, v6) = ("10.96.0.7", "fd00:96::7");
        for (nodes, service, expected) in [
            (vec![], &[v4][..], ""),
            (vec![edge("e1")], &[v4], "10.96.0.7\te1"),
            (vec![edge("e1")], &[v6], "fd00:96::7\te1"),
            (vec![edge("e1")], &[v6, v4], "10.96.0.7\te1\nfd00:96::7\te1"),
            (vec![cloud("c1", &[])], &[v4], ""),
            (
                vec![cloud(
                    "c1",
                    &["fd00::2", "10.77.0.2", "10.77.0.3", "fd00::3"],
                )],
                &[v4],
                "10.77.0.2\tc1\nfd00::2\tc1",
            ),
            (
                // Sorted as texts, and not by name or number.
                vec![
                    cloud("a", &["9.0.0.1"]),
                    cloud("b", &["10.0.0.1"]),
                    edge("c"),
                ],
                &[v4],
                "10.0.0.1\tb\n10.96.0.7\tc\n9.0.0.1\ta",
            ),
        ] {
            let records = records(nodes, service);
            assert_eq!(records.text, expected);
            assert_eq!(records.count, expected.lines().count());
            assert_eq!(records.reserved, []);
        }
    }

    #[test]
    fn names_that_end_alike_are_different_nodes() {
        let nodes = || {
            [
                cloud("a-n1", &["10.0.0.1"]),
                edge("n1"),
                cloud("x.n1", &["10.0.0.2"]),
            ]
        };
        let all = records(nodes(), &["10.96.0.7"]);
        assert_eq!(all.text, "10.0.0.1\ta-n1\n10.0.0.2\tx.n1\n10.96.0.7\tn1");
        let fewer = records(nodes().into_iter().take(1), &["10.96.0.7"]);
        assert_eq!(fewer.text, "10.0.0.1\ta-n1");
    }

    #[test]
    fn a_node_is_no_service_and_no_pod() {
        let names = [
            "10-0-0-1.default.pod.example",
            "a.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let records = records(names.map(edge), &["10.96.0.7"]);
        assert_eq!(records.text, "");
        assert_eq!(
            records
                .reserved
                .iter()
                .map(NodeName::as_str)
                .collect::<Vec<_>>(),
            names
        );
        for name in [
            "svc",
            "pod",
            "svc-1.example",
            "node.mysvc.local",
            "edge-1.local",
        ] {
            assert!(!is_reserved(&name.parse().unwrap()), "{name}");
        }
    }

    #[test]
    fn only_tunnelled_nodes_need_the_service() {
        let nodes = [cloud("c1", &[]), edge("e1")];
        assert!(any_tunnelled(&nodes.clone().into_iter().collect()));
        assert!(!any_tunnelled(&nodes.into_iter().take(1).collect()));
    }
}
