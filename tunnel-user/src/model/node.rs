//! An edge node: its name and the addresses under which clients know it.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{GatePolicy, IdentityKey, PortSet, TunnelPort, printable};

/// The longest name that Kubernetes accepts for a Node (a DNS-1123 subdomain).
const MAX_NAME_LEN: usize = 253;

/// A node's name: a DNS-1123 subdomain, as Kubernetes requires of Node objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

/// Why a string is not a [`NodeName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a node name: use lower-case letters, digits, '-' and '.', \
     start and end with a letter or digit, at most 253 characters"
)]
pub struct InvalidNodeName(String);

/// What the control plane knows of one edge node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The node's name.
    pub name: NodeName,
    /// The addresses that clients dial; connections to them on a tunnelled port are redirected.
    pub addresses: Vec<IpAddr>,
    /// Ports of this node alone, besides those of the snapshot (a kubelet on a port of its own).
    pub extra_ports: PortSet,
    /// What connects get while the gate is closed; `None` takes the server's default.
    pub closed_gate: Option<GatePolicy>,
    /// Who may register as this node, where the source knows; `None` admits any identity that
    /// proves the name and addresses.
    pub admits: Option<Admits>,
}

/// Which agents a node admits, of those that prove its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admits {
    /// That of one enrolment.
    Enrolment(IdentityKey),
    /// Those whose certificate was issued then or later.
    IssuedSince(OffsetDateTime),
    /// None: which certificates were revoked cannot be read.
    Nobody,
}

impl Node {
    /// Where its kubelet serves HTTPS.
    pub fn kubelet_port(&self) -> TunnelPort {
        self.extra_ports
            .first()
            .copied()
            .unwrap_or(TunnelPort::KUBELET)
    }
}

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = InvalidNodeName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let valid = name.len() <= MAX_NAME_LEN && name.split('.').all(is_dns_label);
        valid
            .then(|| Self(name.into()))
            .ok_or_else(|| InvalidNodeName(printable(name)))
    }
}

impl TryFrom<String> for NodeName {
    type Error = InvalidNodeName;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_dns_label(label: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !label.is_empty()
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_kubernetes_accepts() {
        for name in ["edge-1", "a", "10.example.com", "0-0"] {
            assert_eq!(name.parse::<NodeName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn refuses_what_could_be_mistaken_for_something_else() {
        let too_long = "a".repeat(MAX_NAME_LEN + 1);
        for name in ["", "Edge", "a..b", "-a", "a-", "a/b", "a_b", ".", &too_long] {
            assert!(name.parse::<NodeName>().is_err(), "{name:?} was accepted");
        }
    }
}
