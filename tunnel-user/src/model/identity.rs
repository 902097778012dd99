//! Who an agent has proved to be.

use std::{fmt, net::IpAddr, sync::Arc};

use super::NodeName;

/// What an agent's credential proves: it may register this name and these addresses, no others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentIdentity {
    /// The node that the credential names.
    pub node: NodeName,
    /// The addresses that the credential names.
    pub addresses: Vec<IpAddr>,
    /// Tells two holders of the same node name apart.
    pub key: IdentityKey,
}

/// Names one enrolment of a node. It survives the renewal of the certificate, and differs after
/// the node was enrolled anew: so an old machine cannot displace the one that took its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdentityKey(Arc<str>);

impl IdentityKey {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for IdentityKey {
    fn from(key: &str) -> Self {
        Self(key.into())
    }
}

impl fmt::Display for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
