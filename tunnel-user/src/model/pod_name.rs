//! Which pod is meant, by the names that Kubernetes gives it.

use std::fmt;

use super::NodeName;

/// A pod's namespace and name. They become part of a URL, so nothing but names can be in here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodName {
    namespace: NodeName,
    name: NodeName,
}

impl PodName {
    /// `None` if one of the two is no name. Both are DNS-1123 subdomains, as names of nodes are.
    pub fn new(namespace: &str, name: &str) -> Option<Self> {
        Some(Self {
            namespace: namespace.parse().ok()?,
            name: name.parse().ok()?,
        })
    }

    /// Where it is.
    pub fn namespace(&self) -> &str {
        self.namespace.as_str()
    }

    /// What it is called there.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
