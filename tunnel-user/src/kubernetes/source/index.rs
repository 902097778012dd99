//! All that has been heard of the cluster, and the snapshot that follows from it.
//!
//! ```text
//!  [Node]      --> facts --\
//!  [ConfigMap] --> ports ---+--> Snapshot, findings
//!  flags       --> rules --/
//! ```
//! A list counts only once it is whole: until then the last one stays, or a table would lose nodes
//! for the time that a list takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
};

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::runtime::watcher::Event;

use super::{
    Finding, NodeSelector, PortsProblem,
    node::{NodeFacts, NodeObject},
    ports::Ports,
    ports_config::{LastConfig, PortsConfig},
};
use crate::{
    kubernetes::ObjectName,
    model::{NodeName, PortSet, Snapshot, TunnelPort},
};

/// What does not change while the server runs.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) selectors: Vec<NodeSelector>,
    pub(super) ports_config: ObjectName,
    /// Tunnelled whatever the `ConfigMap` says.
    pub(super) ports: PortSet,
    /// Never tunnelled.
    pub(super) reserved: PortSet,
    /// No node may claim them: whoever could would take the control plane's, and this server's own,
    /// connections to its API server.
    pub(super) api_server: Vec<IpAddr>,
}

/// What is known of the cluster.
pub(super) struct Index {
    rules: Rules,
    nodes: Nodes,
    /// The nodes of a list that is not whole yet.
    listed: Nodes,
    heard_nodes: bool,
    config: LastConfig,
}

/// What follows from it.
pub(super) struct View {
    pub(super) snapshot: Snapshot,
    pub(super) findings: BTreeSet<Finding>,
}

#[derive(Default, PartialEq, Eq)]
struct Nodes {
    facts: BTreeMap<NodeName, NodeFacts>,
    /// Objects whose name is none, by that.
    nameless: BTreeMap<String, Finding>,
}

impl Index {
    /// Starts with what was kept on disk.
    pub(super) fn new(
        rules: Rules,
        saved: impl IntoIterator<Item = NodeFacts>,
        config: Option<PortsConfig>,
    ) -> Self {
        let by_name = |facts: NodeFacts| (facts.name.clone(), facts);
        Self {
            rules,
            nodes: Nodes {
                facts: saved.into_iter().map(by_name).collect(),
                nameless: BTreeMap::new(),
            },
            listed: Nodes::default(),
            heard_nodes: false,
            config: LastConfig::saved(config),
        }
    }

    /// Takes an event of the watch on Nodes; whether the view may be another one now.
    pub(super) fn hear_node(&mut self, event: Event<NodeObject>) -> bool {
        match event {
            Event::Init => {
                self.listed = Nodes::default();
                false
            }
            Event::InitApply(object) => {
                self.listed.insert(&object, &self.rules);
                false
            }
            Event::InitDone => {
                let listed = mem::take(&mut self.listed);
                let first = !mem::replace(&mut self.heard_nodes, true);
                mem::replace(&mut self.nodes, listed) != self.nodes || first
            }
            Event::Apply(object) => self.nodes.insert(&object, &self.rules),
            Event::Delete(object) => self.nodes.remove(object.name()),
        }
    }

    /// Takes an event of the watch on the `ConfigMap`; whether the view may be another one now.
    pub(super) fn hear_config(&mut self, event: Event<ConfigMap>) -> bool {
        self.config.hear(event)
    }

    /// Whether the API server has told of all nodes.
    pub(super) fn heard_nodes(&self) -> bool {
        self.heard_nodes
    }

    /// Whether the API server has told of the `ConfigMap`, or that there is none.
    pub(super) fn heard_config(&self) -> bool {
        self.config.heard
    }

    /// Whether there is a `ConfigMap`, or has been one.
    pub(super) fn has_config(&self) -> bool {
        self.config.last.is_some()
    }

    /// What is worth keeping on disk.
    pub(super) fn to_save(&self) -> (Vec<NodeFacts>, Option<PortsConfig>) {
        let nodes = self.nodes.facts.values().cloned();
        (nodes.collect(), self.config.last.clone())
    }

    /// The `ConfigMap` as Events name it.
    pub(super) fn ports_config(&self) -> ObjectReference {
        self.config.reference(&self.rules.ports_config)
    }

    /// The snapshot, and what is wrong.
    pub(super) fn view(&self) -> View {
        let asked = self.asked_ports();
        let facts = || self.nodes.facts.values();
        let tunnelled = facts().filter(|facts| facts.tunnelled);
        let snapshot = Snapshot::new(tunnelled.map(NodeFacts::node), self.tunnelled_ports(&asked))
            .with_loopback_ports(asked.loopback)
            .without_addresses_of(facts().filter(|facts| !facts.tunnelled).flat_map(claims));
        let mut findings: BTreeSet<Finding> = self.nodes.nameless.values().cloned().collect();
        findings.extend(facts().flat_map(node_findings));
        findings.extend(shared_addresses(&snapshot));
        let problems = asked.problems.into_iter();
        findings.extend(problems.map(|problem| self.ports_finding(problem)));
        View { snapshot, findings }
    }

    /// What is wrong with the `ConfigMap`.
    pub(super) fn ports_finding(&self, problem: PortsProblem) -> Finding {
        Finding::Ports {
            config: self.rules.ports_config.clone(),
            problem,
        }
    }

    /// The ports that the `ConfigMap` asks for, or asked for last.
    fn asked_ports(&self) -> Ports {
        let Some(config) = &self.config.last else {
            return Ports::default();
        };
        let mut ports = Ports::read(&config.data, &self.rules.reserved);
        if self.config.gone && !ports.tunnelled.is_empty() {
            let gone = PortsProblem::Gone(ports.tunnelled.clone());
            ports.problems.push(gone);
        }
        ports
    }

    fn tunnelled_ports(&self, asked: &Ports) -> PortSet {
        let kubelet = [TunnelPort::KUBELET, TunnelPort::KUBELET_READ_ONLY];
        let always = kubelet.iter().chain(&self.rules.ports);
        always.chain(&asked.tunnelled).copied().collect()
    }
}

impl Nodes {
    fn insert(&mut self, object: &NodeObject, rules: &Rules) -> bool {
        match NodeFacts::read(object, rules) {
            Ok(facts) => {
                let unchanged = self.facts.get(&facts.name) == Some(&facts);
                self.facts.insert(facts.name.clone(), facts);
                !unchanged
            }
            Err(error) => {
                let finding = Finding::node_name(&error);
                let before = self.nameless.insert(object.name().to_owned(), finding);
                before.is_none()
            }
        }
    }

    fn remove(&mut self, name: &str) -> bool {
        match name.parse::<NodeName>() {
            Ok(name) => self.facts.remove(&name).is_some(),
            Err(_) => self.nameless.remove(name).is_some(),
        }
    }
}

fn claims(facts: &NodeFacts) -> impl Iterator<Item = (IpAddr, NodeName)> {
    let addresses = facts.addresses.iter();
    addresses.map(|address| (*address, facts.name.clone()))
}

fn node_findings(facts: &NodeFacts) -> impl Iterator<Item = Finding> {
    facts.problems.iter().map(|problem| Finding::Node {
        node: facts.name.clone(),
        problem: problem.clone(),
    })
}

fn shared_addresses(snapshot: &Snapshot) -> impl Iterator<Item = Finding> {
    let conflicts = snapshot.conflicts().iter();
    conflicts.map(|conflict| Finding::SharedAddress {
        address: conflict.address,
        nodes: conflict.nodes.clone(),
    })
}

#[cfg(test)]
mod tests;
