//! Whether an agent may register what it asks for: a decision over what its certificate proves,
//! what it says, and what the snapshot knows.

use std::net::IpAddr;

use super::metadata::AgentHello;
use crate::model::{AgentIdentity, Node, NodeName, Snapshot};

/// Why an agent was not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It asks for another node's name.
    #[error("the certificate names node {proved}, but the agent registers as {asked}")]
    WrongNode {
        /// The node that the certificate names.
        proved: NodeName,
        /// The node that the agent asked for.
        asked: NodeName,
    },
    /// It asks for an address that its certificate does not name.
    #[error("the certificate of node {node} does not name address {address}")]
    WrongAddress {
        /// The node.
        node: NodeName,
        /// The address it asked for.
        address: IpAddr,
    },
    /// Nobody knows the node.
    #[error(
        "node {0} is not among the nodes of this server: without a cluster it has to enrol, with a new \
         token; in one its Node object, or the label that makes it an edge node, is missing"
    )]
    UnknownNode(NodeName),
    /// The node exists, but belongs to another enrolment.
    #[error(
        "node {0} was enrolled anew by another machine: this certificate is no longer valid; \
         enrol this machine with a new token if it is the right one"
    )]
    Superseded(NodeName),
    /// Another live session holds the name with another identity.
    #[error("node {0} has a live session with another identity, which keeps it")]
    HeldByOther(NodeName),
}

/// Admits what the identity proves, the hello stays within, and the snapshot agrees with; returns
/// the identity with the addresses that are registered. Those that the node no longer has, or does
/// not have yet, are left out: its agent must not be locked out while they change.
pub(crate) fn admit(
    hello: &AgentHello,
    identity: &AgentIdentity,
    snapshot: &Snapshot,
) -> Result<AgentIdentity, Refusal> {
    if hello.node != identity.node {
        return Err(Refusal::WrongNode {
            proved: identity.node.clone(),
            asked: hello.node.clone(),
        });
    }
    let unproved = hello
        .addresses
        .iter()
        .find(|address| !identity.addresses.contains(address));
    if let Some(address) = unproved {
        return Err(Refusal::WrongAddress {
            node: hello.node.clone(),
            address: *address,
        });
    }
    let node = admitting(identity, snapshot)?;
    let known = |address: &IpAddr| node.addresses.contains(address);
    let (addresses, unknown): (Vec<_>, Vec<_>) = hello.addresses.iter().copied().partition(known);
    if !unknown.is_empty() {
        tracing::info!(node = %node.name, ?unknown, "the node does not have all addresses of its agent's certificate");
    }
    Ok(AgentIdentity {
        addresses,
        ..identity.clone()
    })
}

/// Whether a session that was let in may stay, now that the snapshot has changed.
pub(crate) fn still_admitted(identity: &AgentIdentity, snapshot: &Snapshot) -> Result<(), Refusal> {
    admitting(identity, snapshot).map(drop)
}

fn admitting<'a>(identity: &AgentIdentity, snapshot: &'a Snapshot) -> Result<&'a Node, Refusal> {
    let Some(node) = snapshot.node(&identity.node) else {
        return Err(Refusal::UnknownNode(identity.node.clone()));
    };
    match &node.admits {
        Some(key) if *key != identity.key => Err(Refusal::Superseded(identity.node.clone())),
        Some(_) | None => Ok(node),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{IdentityKey, PortSet};

    fn identity(node: &str, key: &str) -> AgentIdentity {
        AgentIdentity {
            node: node.parse().unwrap(),
            addresses: vec!["10.0.0.1".parse().unwrap(), "10.0.0.3".parse().unwrap()],
            key: IdentityKey::from(key),
        }
    }

    fn snapshot() -> Snapshot {
        let node = Node {
            name: "edge-1".parse().unwrap(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            extra_ports: PortSet::new(),
            closed_gate: None,
            admits: Some(IdentityKey::from("first")),
        };
        Snapshot::new([node], PortSet::new())
    }

    fn ask(node: &str, address: &str, identity: &AgentIdentity) -> Result<Vec<IpAddr>, Refusal> {
        let hello = AgentHello {
            node: node.parse().unwrap(),
            addresses: vec![address.parse().unwrap()],
            native: true,
            version: String::new(),
            sessions_with: Vec::new(),
        };
        admit(&hello, identity, &snapshot()).map(|admitted| admitted.addresses)
    }

    #[test]
    fn what_the_certificate_names_is_let_in() {
        assert_eq!(
            ask("edge-1", "10.0.0.1", &identity("edge-1", "first")),
            Ok(vec!["10.0.0.1".parse().unwrap()])
        );
    }

    #[test]
    fn an_address_that_the_node_no_longer_has_is_left_out_and_the_agent_let_in() {
        assert_eq!(
            ask("edge-1", "10.0.0.3", &identity("edge-1", "first")),
            Ok(Vec::new())
        );
    }

    #[test]
    fn another_nodes_name_or_address_is_refused() {
        let holder = identity("edge-2", "first");
        assert!(matches!(
            ask("edge-1", "10.0.0.1", &holder),
            Err(Refusal::WrongNode { .. })
        ));
        let holder = identity("edge-1", "first");
        assert!(matches!(
            ask("edge-1", "10.0.0.2", &holder),
            Err(Refusal::WrongAddress { .. })
        ));
    }

    #[test]
    fn an_unknown_node_and_a_superseded_enrolment_are_refused() {
        let unknown = identity("edge-2", "first");
        assert!(matches!(
            ask("edge-2", "10.0.0.1", &unknown),
            Err(Refusal::UnknownNode(_))
        ));
        let old = identity("edge-1", "second");
        assert!(matches!(
            ask("edge-1", "10.0.0.1", &old),
            Err(Refusal::Superseded(_))
        ));
    }
}
