//! What is wrong in the cluster, as far as the snapshot suffers from it.

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::api::core::v1::ObjectReference;
use tracing::{info, warn};

use super::{NodeProblem, PortsProblem};
use crate::{
    kubernetes::{
        ObjectName,
        events::{EventRecord, Events, about_node},
    },
    model::{InvalidNodeName, NodeName, printable_up_to},
};

/// How many nodes a message names.
const MOST_NAMED: usize = 8;
/// The longest message: what an Event may say.
const LONGEST_NOTE: usize = 1000;

/// Something that a human should put right. It holds until it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum ClusterProblem {
    /// A Node object whose name no node can have; nothing else of it counts.
    #[error("a Node object is left out: {0}")]
    NodeName(String),
    /// A Node.
    #[error("node {node}: {problem}")]
    Node {
        /// The node.
        node: NodeName,
        /// What is wrong with it.
        problem: NodeProblem,
    },
    /// Nodes that have the same address, of which none can be said to have had it first.
    #[error(
        "{address} is the address of {}: connections to it are refused, for they could reach the \
         wrong one; give it to one of them alone, or delete the Nodes that are gone",
        list(nodes)
    )]
    SharedAddress {
        /// The address.
        address: IpAddr,
        /// Who has it, in order.
        nodes: Vec<NodeName>,
    },
    /// Nodes that have an address which others had before.
    #[error(
        "{address} of {} is that of {}, which had it before and {} it: give one of them another, or \
         delete a Node that is gone",
        list(nodes),
        list(holders),
        if holders.len() > 1 { "keep" } else { "keeps" }
    )]
    HeldAddress {
        /// The address.
        address: IpAddr,
        /// Who keeps it.
        holders: Vec<NodeName>,
        /// Who does not get it, in order.
        nodes: Vec<NodeName>,
    },
    /// The `ConfigMap` of the ports.
    #[error("ConfigMap {config}: {problem}")]
    Ports {
        /// The `ConfigMap`.
        config: ObjectName,
        /// What is wrong with it.
        problem: PortsProblem,
    },
}

/// Tells of problems: the log once for each change, and Events while this server leads.
pub(super) struct EventReporter {
    events: Events,
    told: BTreeSet<ClusterProblem>,
}

impl ClusterProblem {
    pub(super) fn node_name(error: &InvalidNodeName) -> Self {
        Self::NodeName(error.to_string())
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::NodeName(_) => "InvalidNodeName",
            Self::Node { problem, .. } => match problem {
                NodeProblem::NoAddress => "NoNodeAddress",
                NodeProblem::InvalidAddress(_)
                | NodeProblem::UnfitAddress(..)
                | NodeProblem::OutsideNodeNetworks(_)
                | NodeProblem::ApiServerAddress(_)
                | NodeProblem::ServiceAddress(_)
                | NodeProblem::PodAddress(_)
                | NodeProblem::TooManyAddresses { .. } => "InvalidNodeAddress",
                NodeProblem::InvalidKubeletPort(_) | NodeProblem::ForeignKubeletPort(_) => {
                    "InvalidKubeletPort"
                }
                NodeProblem::PodRangeOverNodes(_) => "InvalidPodRange",
                NodeProblem::ServerName => "ReservedNodeName",
                NodeProblem::InvalidNotBefore(_) => "InvalidNotBefore",
            },
            Self::SharedAddress { .. } | Self::HeldAddress { .. } => "SharedNodeAddress",
            Self::Ports { problem, .. } => match problem {
                PortsProblem::Gone(_) => "PortsConfigGone",
                PortsProblem::Unreadable(_) => "PortsConfigUnreadable",
                PortsProblem::UnknownKeys(_) => "UnknownPortsKey",
                PortsProblem::Invalid { .. }
                | PortsProblem::Reserved { .. }
                | PortsProblem::TooMany { .. } => "InvalidPorts",
            },
        }
    }

    /// The one node that it is about, if it is.
    fn node(&self) -> Option<&str> {
        match self {
            Self::Node { node, .. } => Some(node.as_str()),
            // Who claims what is another's can do so for many addresses.
            Self::HeldAddress { nodes, .. } => match &nodes[..] {
                [only] => Some(only.as_str()),
                _ => None,
            },
            Self::NodeName(_) | Self::SharedAddress { .. } | Self::Ports { .. } => None,
        }
    }

    /// What it says: a node says much of itself.
    fn text(&self) -> String {
        printable_up_to(&self.to_string(), LONGEST_NOTE)
    }

    /// One record for each object that the problem is about.
    fn notices(&self, ports_config: &ObjectReference) -> Vec<EventRecord> {
        let (about, action) = match self {
            // There is no object that an Event could name.
            Self::NodeName(_) => (Vec::new(), "ReadNode"),
            Self::Node { node, .. } => (vec![about_node(node)], "ReadNode"),
            // Who keeps its address has nothing to put right.
            Self::SharedAddress { nodes, .. } | Self::HeldAddress { nodes, .. } => {
                (nodes.iter().map(about_node).collect(), "Tunnel")
            }
            Self::Ports { .. } => (vec![ports_config.clone()], "ReadPorts"),
        };
        let note = self.text();
        let notice = |about| EventRecord {
            about,
            reason: self.reason(),
            action,
            note: note.clone(),
        };
        about.into_iter().map(notice).collect()
    }

    /// The table of nodes logs addresses that nobody has, whatever the source.
    fn is_logged_elsewhere(&self) -> bool {
        matches!(self, Self::SharedAddress { .. })
    }
}

impl EventReporter {
    pub(super) fn new(events: Events) -> Self {
        Self {
            events,
            told: BTreeSet::new(),
        }
    }

    /// Tells of what has changed since the last time.
    pub(super) fn tell(
        &mut self,
        problems: BTreeSet<ClusterProblem>,
        ports_config: &ObjectReference,
        leading: bool,
    ) {
        for problem in problems.difference(&self.told) {
            if !problem.is_logged_elsewhere() {
                let (node, text) = (problem.node(), problem.text());
                warn!(node, reason = problem.reason(), "{text}");
            }
            if leading {
                self.write(problem, ports_config);
            }
        }
        for problem in self.told.difference(&problems) {
            if !problem.is_logged_elsewhere() {
                let (node, text) = (problem.node(), problem.text());
                info!(node, reason = problem.reason(), "no longer: {text}");
            }
        }
        self.told = problems;
    }

    /// Writes Events of everything that still holds, now that this server leads.
    pub(super) fn tell_again(&self, ports_config: &ObjectReference) {
        for problem in &self.told {
            self.write(problem, ports_config);
        }
    }

    fn write(&self, problem: &ClusterProblem, ports_config: &ObjectReference) {
        for notice in problem.notices(ports_config) {
            self.events.write(notice);
        }
    }
}

/// The first of them: a thousand sites may use the same private address.
fn list(nodes: &[NodeName]) -> String {
    let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
    if names.len() > MOST_NAMED {
        let more = names.len() - MOST_NAMED;
        return format!("nodes {} and {more} more", names[..MOST_NAMED].join(", "));
    }
    match names.split_last() {
        Some((last, others)) if !others.is_empty() => {
            format!("nodes {} and {last}", others.join(", "))
        }
        Some(_) | None => names.concat(),
    }
}

#[cfg(test)]
mod tests;
