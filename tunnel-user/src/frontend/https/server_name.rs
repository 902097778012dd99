//! Which node a client means by the name of its server.

use crate::model::{Node, NodeName, Snapshot};

/// Why a name leads to no node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoNode {
    /// No node has it.
    Unknown,
    /// It begins with the names of several.
    Ambiguous,
}

/// The node that has this name, or whose name with a domain behind it this is, if that is one node.
///
/// Names of nodes may have dots themselves: `edge-1.site.example` is the node of that name; if there is none, it is
/// `edge-1.site` or `edge-1`, but not where there are both.
pub(super) fn node_named<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Node, NoNode> {
    let name = name.to_ascii_lowercase();
    // The dot that ends a name in the DNS has no place in TLS, but some clients send it.
    let name = name.strip_suffix('.').unwrap_or(&name);
    let node = |name: &str| snapshot.node(&name.parse::<NodeName>().ok()?);
    if let Some(node) = node(name) {
        return Ok(node);
    }
    let before_dots = name.match_indices('.').map(|(dot, _)| &name[..dot]);
    let mut found = before_dots.filter_map(node);
    match (found.next(), found.next()) {
        (Some(node), None) => Ok(node),
        (None, _) => Err(NoNode::Unknown),
        (Some(_), Some(_)) => Err(NoNode::Ambiguous),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PortSet;

    fn snapshot(names: &[&str]) -> Snapshot {
        let nodes = names.iter().map(|name| Node {
            name: name.parse().unwrap(),
            addresses: Vec::new(),
            extra_ports: PortSet::new(),
            closed_gate: None,
            admits: None,
        });
        Snapshot::new(nodes, PortSet::new())
    }

    #[test]
    fn a_name_is_a_nodes_with_or_without_a_domain() {
        let snapshot = snapshot(&[
            "edge-1",
            "edge-2.site",
            "edge-2.site.b",
            "edge-2",
            "10.0.0.1",
        ]);
        for (asked, node) in [
            ("edge-1", Ok("edge-1")),
            ("EDGE-1", Ok("edge-1")),
            ("edge-1.", Ok("edge-1")),
            ("edge-1.kube-system.svc.cluster.local", Ok("edge-1")),
            ("edge-2", Ok("edge-2")),
            ("edge-2.other", Ok("edge-2")),
            // The node itself comes before those whose names it begins with.
            ("edge-2.site", Ok("edge-2.site")),
            ("edge-2.site.b", Ok("edge-2.site.b")),
            ("edge-2.site.example", Err(NoNode::Ambiguous)),
            ("10.0.0.1", Ok("10.0.0.1")),
            ("edge-11", Err(NoNode::Unknown)),
            ("x.edge-1", Err(NoNode::Unknown)),
            ("edge", Err(NoNode::Unknown)),
            (".edge-1", Err(NoNode::Unknown)),
            ("..", Err(NoNode::Unknown)),
            ("edge-1/..", Err(NoNode::Unknown)),
        ] {
            let found = node_named(&snapshot, asked).map(|node| node.name.as_str());
            assert_eq!(found, node, "{asked}");
        }
    }
}
