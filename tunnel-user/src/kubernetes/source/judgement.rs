//! What of a Node's own words counts, by the rules of this server: whether it is tunnelled, which
//! of its addresses are captured, which port its kubelet may have.
//!
//! A kubelet writes all of that itself. So an address is captured only where none of these says
//! that it is another's:
//!
//! | rule | whose word |
//! |---|---|
//! | it is in `--node-networks`, where there are any | the operator |
//! | it is not the API server's, nor a Service's | the API server |
//! | it is in no pods' range that was there before it | the Nodes' |

use std::net::IpAddr;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{cluster_addresses::ClusterAddresses, index::Rules, node::NodeFacts};
use crate::{
    kubernetes::certificates::kind::SERVER_SUBJECT,
    model::{Admits, Node, NodeName, TunnelPort, UnfitAddress},
};

/// An operator's word that certificates of the node's agent from before this time count no longer.
const NOT_BEFORE: &str = "culvert.dev/not-before";

/// What follows from a Node that is tunnelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) node: Node,
    /// What it says it has and may have, but not here.
    pub(super) outside: Vec<IpAddr>,
    pub(super) problems: Vec<NodeProblem>,
}

/// What is wrong with a tunnelled Node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum NodeProblem {
    /// It has no address that clients could dial.
    #[error("it has no usable InternalIP: nothing can be tunnelled to it")]
    NoAddress,
    /// An address is none.
    #[error("its InternalIP {0:?} is not an IP address: left out")]
    InvalidAddress(String),
    /// An address leads to no single machine.
    #[error("its InternalIP {0} is {1}, which does not lead to one node: left out")]
    UnfitAddress(IpAddr, UnfitAddress),
    /// An address that the operator has not set aside for nodes.
    #[error(
        "its InternalIP {0} is in none of --node-networks: left out; correct the kubelet's \
         --node-ip, or add its network to --node-networks (CULVERT_NODE_NETWORKS)"
    )]
    OutsideNodeNetworks(IpAddr),
    /// An address that no node can have.
    #[error("its InternalIP {0} is the API server's: left out")]
    ApiServerAddress(IpAddr),
    /// An address that no node can have.
    #[error("its InternalIP {0} is a Service's ClusterIP: left out")]
    ServiceAddress(IpAddr),
    /// An address that was pods' before.
    #[error("its InternalIP {0} is in a range of pods: left out")]
    PodAddress(IpAddr),
    /// More addresses than a machine has.
    #[error("it has more than {most} InternalIPs: the others are left out")]
    TooManyAddresses {
        /// How many count.
        most: usize,
    },
    /// Its name makes its kubelet's certificate look like a server's.
    #[error(
        "a Node of this name is never tunnelled: its kubelet's certificates have the subject of \
         culvert's servers ({SERVER_SUBJECT}); give the machine another name"
    )]
    ServerName,
    /// An operator's annotation is no time.
    #[error(
        "its annotation {NOT_BEFORE} is {0:?}, which is no time such as 2026-01-31T15:04:05Z: which \
         certificates of its agent are revoked cannot be told, so no agent of it is let in"
    )]
    InvalidNotBefore(String),
    /// The kubelet's port is none.
    #[error("its kubelet's port {0} is not between 1 and 65535: 10250 is taken")]
    InvalidKubeletPort(i32),
    /// A port that the operator has not set aside for kubelets.
    #[error(
        "its kubelet's port {0} is none of --kubelet-ports: it is not captured; add it there \
         (CULVERT_KUBELET_PORTS) if kubelets have it"
    )]
    ForeignKubeletPort(TunnelPort),
    /// Its pods have addresses that nodes had before.
    #[error(
        "its podCIDR {0} has addresses in it that are Nodes' InternalIPs, and were before: those \
         stay theirs; give the Node a range that no node is in"
    )]
    PodRangeOverNodes(ipnet::IpNet),
}

/// What Nodes are judged by.
pub(super) struct Judge<'a> {
    pub(super) rules: &'a Rules,
    pub(super) cluster: &'a ClusterAddresses,
    /// Whether the address is in a range of pods that counts.
    pub(super) is_pods: &'a dyn Fn(IpAddr) -> bool,
    /// Whether the Node had the address before.
    pub(super) had: &'a dyn Fn(IpAddr, &NodeName) -> bool,
}

impl Judge<'_> {
    /// A tunnelled Node as snapshots have it.
    pub(super) fn tunnelled(&self, facts: &NodeFacts) -> Judged {
        let mut problems = facts.problems.clone();
        let mut outside = Vec::new();
        let mut addresses = Vec::with_capacity(facts.internal.len());
        for address in facts.internal.iter().copied() {
            match self.address(address, &facts.name) {
                Ok(()) => addresses.push(address),
                Err(problem) => {
                    if matches!(problem, NodeProblem::OutsideNodeNetworks(_)) {
                        outside.push(address);
                    }
                    problems.push(problem);
                }
            }
        }
        if addresses.is_empty() {
            problems.push(NodeProblem::NoAddress);
        }
        let kubelet_port = self.kubelet_port(facts.kubelet_port);
        let kubelet_port = kubelet_port.unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let admits = admits(facts).unwrap_or_else(|problem| {
            problems.push(problem);
            Some(Admits::Nobody)
        });
        let node = Node {
            name: facts.name.clone(),
            addresses,
            extra_ports: kubelet_port.into_iter().collect(),
            closed_gate: None,
            admits,
        };
        Judged {
            node,
            outside,
            problems,
        }
    }

    fn address(&self, address: IpAddr, node: &NodeName) -> Result<(), NodeProblem> {
        if self.cluster.is_api_server(address) {
            Err(NodeProblem::ApiServerAddress(address))
        } else if self.cluster.is_service(address) {
            Err(NodeProblem::ServiceAddress(address))
        } else if !self.rules.node_networks.admit(address) {
            Err(NodeProblem::OutsideNodeNetworks(address))
        } else if (self.is_pods)(address) && !(self.had)(address, node) {
            Err(NodeProblem::PodAddress(address))
        } else {
            Ok(())
        }
    }

    /// The kubelet's port where it is not everybody's.
    fn kubelet_port(&self, number: i32) -> Result<Option<TunnelPort>, NodeProblem> {
        if number == 0 {
            return Ok(None);
        }
        let port = u16::try_from(number).ok().and_then(TunnelPort::new);
        match port {
            None => Err(NodeProblem::InvalidKubeletPort(number)),
            Some(TunnelPort::KUBELET) => Ok(None),
            Some(port) if self.rules.kubelet_ports.contains(&port) => Ok(Some(port)),
            Some(port) => Err(NodeProblem::ForeignKubeletPort(port)),
        }
    }
}

/// Which certificates of the node's agent count. Where an operator's word cannot be read none does,
/// for some are meant to be revoked.
fn admits(facts: &NodeFacts) -> Result<Option<Admits>, NodeProblem> {
    let revoked = facts.not_before.as_ref().map(|text| {
        let time = OffsetDateTime::parse(text.trim(), &Rfc3339);
        time.map_err(|_| NodeProblem::InvalidNotBefore(text.clone()))
    });
    let since = facts.created.max(revoked.transpose()?);
    Ok(since.map(Admits::IssuedSince))
}

#[cfg(test)]
mod tests;
