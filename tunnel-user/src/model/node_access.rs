//! What somebody wants of a node, in the words of Kubernetes' authorisation: a verb on a subresource of `nodes`.

use std::fmt;

use super::NodeName;

/// One question of an authoriser.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeAccess {
    /// What is done.
    pub verb: Verb,
    /// To which part of the node.
    pub subresource: Subresource,
    /// Of which node; of every node where there is none.
    pub node: Option<NodeName>,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Read.
    Get,
    /// Make, or run.
    Create,
    /// Replace.
    Update,
    /// Change.
    Patch,
    /// Remove.
    Delete,
}

/// A part of a node that permissions are given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subresource {
    /// Everything that no other covers.
    Proxy,
    /// Figures for Prometheus.
    Metrics,
    /// Figures for metrics-server.
    Stats,
    /// Log files of the machine.
    Log,
    /// Pods and their specifications.
    Pods,
    /// Whether the kubelet works.
    Healthz,
    /// The kubelet's settings.
    Configz,
    /// The kubelet's version and uptime.
    Statusz,
    /// The memory of a container, on the node's disk.
    Checkpoint,
}

impl Verb {
    /// As it stands in a Role.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

impl Subresource {
    /// As it stands in a Role, behind `nodes/`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Metrics => "metrics",
            Self::Stats => "stats",
            Self::Log => "log",
            Self::Pods => "pods",
            Self::Healthz => "healthz",
            Self::Configz => "configz",
            Self::Statusz => "statusz",
            Self::Checkpoint => "checkpoint",
        }
    }
}

impl fmt::Display for NodeAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, subresource) = (self.verb.as_str(), self.subresource.as_str());
        write!(f, "{verb} nodes/{subresource}")?;
        match &self.node {
            Some(node) => write!(f, " of node {node}"),
            None => f.write_str(" of any node"),
        }
    }
}
