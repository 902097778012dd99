//! Whether an agent may register what it asks for: a decision over what its certificate proves,
//! what it says, and what the snapshot knows.

use std::net::IpAddr;

use time::OffsetDateTime;

use super::metadata::AgentHello;
use crate::model::{Admits, AgentIdentity, Node, NodeName, Snapshot};

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
    /// The certificate is older than what the node admits.
    #[error(
        "the certificate of node {node} was issued at {issued}, but only those issued since {since} \
         count: since then the Node object was created anew, or its annotation \
         culvert.dev/not-before revokes older ones; an agent on that node asks its cluster for \
         another one by itself"
    )]
    Revoked {
        /// The node.
        node: NodeName,
        /// When the certificate was issued.
        issued: OffsetDateTime,
        /// From when on certificates count.
        since: OffsetDateTime,
    },
    /// Nobody knows which certificates of the node are revoked.
    #[error(
        "which certificates of node {0} are revoked cannot be read: put a time such as \
         2026-01-31T15:04:05Z into the Node's annotation culvert.dev/not-before, or remove it"
    )]
    UnreadableRevocation(NodeName),
    /// Another live session holds the name with another identity.
    #[error("node {0} has a live session with another identity, which keeps it")]
    HeldByOther(NodeName),
}

impl Refusal {
    /// Whether the same agent may be let in with a certificate that is issued now.
    pub(crate) fn is_of_certificate(&self) -> bool {
        matches!(self, Self::Revoked { .. })
    }
}

/// Admits what the identity proves, the hello stays within, and the snapshot agrees with; returns
/// the identity with the addresses that are registered. Those that the node no longer has, or does
/// not have yet, are left out: its agent must not be locked out while they change.
pub(crate) fn admit(
    hello: &AgentHello,
    identity: &AgentIdentity,
    issued: OffsetDateTime,
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
    let node = admitting(identity, issued, snapshot)?;
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
pub(crate) fn still_admitted(
    identity: &AgentIdentity,
    issued: OffsetDateTime,
    snapshot: &Snapshot,
) -> Result<(), Refusal> {
    admitting(identity, issued, snapshot).map(drop)
}

fn admitting<'a>(
    identity: &AgentIdentity,
    issued: OffsetDateTime,
    snapshot: &'a Snapshot,
) -> Result<&'a Node, Refusal> {
    let Some(node) = snapshot.node(&identity.node) else {
        return Err(Refusal::UnknownNode(identity.node.clone()));
    };
    match &node.admits {
        Some(Admits::Enrolment(key)) if *key != identity.key => {
            Err(Refusal::Superseded(identity.node.clone()))
        }
        Some(Admits::IssuedSince(since)) if issued < *since => Err(Refusal::Revoked {
            node: identity.node.clone(),
            issued,
            since: *since,
        }),
        Some(Admits::Nobody) => Err(Refusal::UnreadableRevocation(identity.node.clone())),
        Some(Admits::Enrolment(_) | Admits::IssuedSince(_)) | None => Ok(node),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{IdentityKey, PortSet};

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn identity(node: &str, key: &str) -> AgentIdentity {
        AgentIdentity {
            node: node.parse().unwrap(),
            addresses: vec!["10.0.0.1".parse().unwrap(), "10.0.0.3".parse().unwrap()],
            key: IdentityKey::from(key),
        }
    }

    fn snapshot() -> Snapshot {
        admitting_only(Admits::Enrolment(IdentityKey::from("first")))
    }

    fn admitting_only(admits: Admits) -> Snapshot {
        let node = Node {
            name: "edge-1".parse().unwrap(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            extra_ports: PortSet::new(),
            closed_gate: None,
            admits: Some(admits),
        };
        Snapshot::new([node], PortSet::new())
    }

    fn ask(node: &str, address: &str, identity: &AgentIdentity) -> Result<Vec<IpAddr>, Refusal> {
        let hello = AgentHello {
            node: node.parse().unwrap(),
            addresses: vec![address.parse().unwrap()],
            native: true,
            takes_first_bytes: true,
            version: String::new(),
            sessions_with: Vec::new(),
        };
        admit(&hello, identity, NOW, &snapshot()).map(|admitted| admitted.addresses)
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
    fn a_certificate_from_before_the_nodes_time_is_refused_and_so_is_every_one_while_that_is_unreadable()
     {
        let identity = identity("edge-1", "edge-1");
        let second = time::Duration::SECOND;
        let snapshot = admitting_only(Admits::IssuedSince(NOW));
        for issued in [NOW, NOW + second] {
            assert_eq!(still_admitted(&identity, issued, &snapshot), Ok(()));
        }
        let refusal = still_admitted(&identity, NOW - second, &snapshot).unwrap_err();
        assert!(matches!(refusal, Refusal::Revoked { .. }) && refusal.is_of_certificate());
        let snapshot = admitting_only(Admits::Nobody);
        let refusal = still_admitted(&identity, NOW + second, &snapshot).unwrap_err();
        assert!(matches!(refusal, Refusal::UnreadableRevocation(_)));
        assert!(
            !refusal.is_of_certificate(),
            "another certificate would not help"
        );
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
