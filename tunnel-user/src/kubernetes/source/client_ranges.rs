//! Where the cluster's own clients come from, for frontends that anybody could dial: the Nodes that are not tunnelled,
//! and their pods.
//!
//! Edge nodes do not speak for the cloud. And what Nodes say, their kubelets wrote: an address is one machine, and a
//! range of pods counts only where it can be that of one Node. A kubelet that made it the world would let the world in.

use ipnet::IpNet;

use super::{index::Rules, node::NodeFacts};
use crate::model::AddressRanges;

/// The largest range of one Node's pods.
const SHORTEST_PREFIX_V4: u8 = 16;
const SHORTEST_PREFIX_V6: u8 = 48;

/// The addresses of those of the Nodes that are not tunnelled and call themselves no server, and of their pods.
pub(super) fn clients_of<'a>(
    nodes: impl Iterator<Item = &'a NodeFacts>,
    rules: &Rules,
) -> AddressRanges {
    let cloud = nodes.filter(|facts| !facts.is_server() && !rules.is_tunnelled(facts));
    let ranges = cloud.flat_map(|facts| {
        let pods = facts.pod_ranges.iter().copied().filter(is_of_one_node);
        facts.internal.iter().copied().map(IpNet::from).chain(pods)
    });
    ranges.collect()
}

fn is_of_one_node(pods: &IpNet) -> bool {
    let shortest = match pods {
        IpNet::V4(_) => SHORTEST_PREFIX_V4,
        IpNet::V6(_) => SHORTEST_PREFIX_V6,
    };
    pods.prefix_len() >= shortest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::source::testing::{cloud, rules, with_pods};

    #[test]
    fn a_nodes_addresses_and_its_pods_are_clients_and_the_world_is_not() {
        let nodes = [
            with_pods(
                cloud("worker-1", &["10.77.0.2", "fd00:77::2"]),
                "10.244.1.0/24",
            ),
            with_pods(cloud("worker-2", &["10.77.0.3"]), "0.0.0.0/0"),
            with_pods(cloud("worker-3", &[]), "2000::/3"),
        ];
        let facts = nodes.map(|node| NodeFacts::read(&node).unwrap());
        let clients = clients_of(facts.iter(), &rules());
        for (address, is_client) in [
            ("10.77.0.2", true),
            ("fd00:77::2", true),
            ("10.244.1.9", true),
            ("10.77.0.3", true),
            ("10.77.0.4", false),
            ("192.0.2.1", false),
            ("2001:db8::1", false),
        ] {
            let contained = clients.contains(address.parse().unwrap());
            assert_eq!(contained, is_client, "{address}");
        }
    }
}
