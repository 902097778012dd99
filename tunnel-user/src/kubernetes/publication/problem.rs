//! What keeps names or ports from being as they should be.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ObjectReference;
use tracing::{info, warn};

use crate::{
    kubernetes::{
        ObjectName,
        events::{EventRecord, Events},
    },
    model::{NoHttpsPort, NodeName, TunnelPort, printable_up_to},
};

/// How many nodes a message names.
const MOST_NAMED: usize = 8;
/// The longest message: what an Event may say.
const LONGEST_NOTE: usize = 1000;

/// Something that a human should put right. It holds until it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub(super) enum Problem {
    #[error(
        "there is no Service {0}, to which clients of edge nodes are sent: what was written last stays; \
         apply culvert's manifests, or name another with --internal-service"
    )]
    NoService(ObjectName),
    #[error(
        "Service {0} has no ClusterIP, to which clients of edge nodes are sent: what was written last \
         stays; give it one (type ClusterIP, and a clusterIP other than None)"
    )]
    NoClusterIp(ObjectName),
    #[error(
        "no records for {}: in the cluster's DNS these are names of Services or pods; give the machines \
         others",
        list(.0)
    )]
    ReservedNames(Vec<NodeName>),
    #[error("it is {percent} % full: at 100 % ({limit} bytes) no change can be written any more")]
    NearlyFull { percent: usize, limit: usize },
    #[error(
        "the records need more than the {limit} bytes that a ConfigMap holds, with what else is in it: what was \
         written last stays, and follows no node any more"
    )]
    TooLarge { limit: usize },
    #[error(
        "its port {port} is somebody else's ({owners}), and stays as it is: it would be {wanted}; take it out \
         of the Service, or out of the ports' ConfigMap"
    )]
    PortTaken {
        port: TunnelPort,
        owners: String,
        wanted: String,
    },
    #[error(
        "it has another port named {name}, so port {port} cannot be added: rename that, or take {port} out of \
         the ports' ConfigMap"
    )]
    NameTaken { port: TunnelPort, name: String },
    #[error("it has no port {port}, for servers take no TLS clients of that: {why}")]
    NotTaken { port: TunnelPort, why: NoHttpsPort },
    #[error("it is left as it is, for {0} cannot be read: {1}")]
    Unreadable(ObjectName, String),
    #[error("it cannot be written: {0}")]
    NotWritten(String),
}

impl Problem {
    fn reason(&self) -> &'static str {
        match self {
            Self::NoService(_) | Self::NoClusterIp(_) => "NoServiceAddress",
            Self::ReservedNames(_) => "UnfitNodeName",
            Self::NearlyFull { .. } => "NamesNearlyFull",
            Self::TooLarge { .. } => "NamesTooLarge",
            Self::PortTaken { .. } | Self::NameTaken { .. } | Self::NotTaken { .. } => {
                "ServicePortTaken"
            }
            Self::Unreadable(..) | Self::NotWritten(_) => "NotWritten",
        }
    }
}

/// Tells of problems with one object: the log and Events, once for each change.
pub(super) struct ProblemReporter {
    kind: &'static str,
    object: ObjectName,
    events: Events,
    told: BTreeSet<Problem>,
}

impl ProblemReporter {
    pub(super) fn new(kind: &'static str, object: ObjectName, events: Events) -> Self {
        let told = BTreeSet::new();
        Self {
            kind,
            object,
            events,
            told,
        }
    }

    /// Tells of what has changed since the last time.
    pub(super) fn tell(&mut self, problems: BTreeSet<Problem>) {
        let object = format!("{} {}", self.kind, self.object);
        for problem in problems.difference(&self.told) {
            let (reason, text) = (problem.reason(), text(problem));
            warn!(object, reason, "{text}");
            self.events.write(EventRecord {
                about: self.reference(),
                reason,
                action: "Write",
                note: text,
            });
        }
        for problem in self.told.difference(&problems) {
            info!(
                object,
                reason = problem.reason(),
                "no longer: {}",
                text(problem)
            );
        }
        self.told = problems;
    }

    /// What holds now, as texts.
    pub(super) fn texts(&self) -> Vec<String> {
        self.told.iter().map(text).collect()
    }

    fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some(self.kind.to_owned()),
            namespace: Some(self.object.namespace.clone()),
            name: Some(self.object.name.clone()),
            ..ObjectReference::default()
        }
    }
}

fn text(problem: &Problem) -> String {
    printable_up_to(&problem.to_string(), LONGEST_NOTE)
}

fn list(nodes: &[NodeName]) -> String {
    let named: Vec<&str> = nodes
        .iter()
        .take(MOST_NAMED)
        .map(NodeName::as_str)
        .collect();
    let named = named.join(", ");
    match nodes.len().saturating_sub(MOST_NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_once_and_again_when_it_comes_back() {
        let (events, mut told) = Events::received();
        let object: ObjectName = "kube-system/names".parse().unwrap();
        let mut reporter = ProblemReporter::new("ConfigMap", object.clone(), events);
        let problem = BTreeSet::from([Problem::NoService(object)]);
        reporter.tell(problem.clone());
        reporter.tell(problem.clone());
        let event = told.try_recv().unwrap();
        assert_eq!(event.reason, "NoServiceAddress");
        assert_eq!(event.about.kind.as_deref(), Some("ConfigMap"));
        assert!(told.try_recv().is_err());
        assert_eq!(reporter.texts().len(), 1);
        reporter.tell(BTreeSet::new());
        assert_eq!(reporter.texts(), [""; 0]);
        reporter.tell(problem);
        assert!(told.try_recv().is_ok());
    }

    #[test]
    fn of_many_nodes_the_first_are_named() {
        let names: Vec<NodeName> = (0..20)
            .map(|n| format!("n{n}.svc").parse().unwrap())
            .collect();
        let text = Problem::ReservedNames(names).to_string();
        assert!(text.contains("n7.svc and 12 more:"), "{text}");
    }
}
