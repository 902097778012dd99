//! All that has been heard of the cluster, and the snapshot that follows from it.
//!
//! ```text
//!  [Node]      --> facts --\
//!  [ConfigMap] --> ports ---+--> judgement --> claims --> Snapshot, problems
//!  flags       --> rules --/
//! ```
//! Facts are kept as they were heard, and judged for each snapshot: rules and the cluster's own
//! addresses may be others by then, over a restart above all.
//!
//! A list counts only once it is whole: until then the last one stays, or a table would lose nodes
//! for the time that a list takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::runtime::watcher::Event;

use time::OffsetDateTime;

use super::{
    ClusterProblem, NodeProblem, NodeSelector, PortsProblem,
    claims::{ClaimKind, Claimant, Claims, HasSession, RefusedClaim},
    client_ranges::clients_of,
    cluster_addresses::ClusterAddresses,
    judgement::{Judge, Judged},
    listing::{ListedNode, Listing, NodePlace},
    node::{NodeFacts, NodeObject},
    pod_ranges::addresses_in,
    ports::Ports,
    ports_config::LastConfig,
    saved::Saved,
};
use crate::{
    kubernetes::ObjectName,
    model::{AddressRanges, NodeName, NodeNetworks, PortSet, Snapshot, TunnelPort},
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
    pub(super) node_networks: NodeNetworks,
    /// The ports besides 10250 that a Node's kubelet may have.
    pub(super) kubelet_ports: PortSet,
}

/// What is known of the cluster.
pub(super) struct Index {
    rules: Rules,
    nodes: Nodes,
    /// The nodes of a list that is not whole yet.
    listed: Nodes,
    heard_nodes: bool,
    config: LastConfig,
    cluster: ClusterAddresses,
    claims: Claims,
    shares_addresses: bool,
}

/// What follows from it.
pub(super) struct View {
    pub(super) snapshot: Snapshot,
    /// Where the cluster's own clients come from.
    pub(super) clients: AddressRanges,
    pub(super) problems: BTreeSet<ClusterProblem>,
    /// When time alone may change it.
    pub(super) next_change: Option<OffsetDateTime>,
}

/// What every Node says of itself, judged.
struct Statements<'a> {
    tunnelled: Vec<Judged>,
    claims: BTreeMap<IpAddr, Vec<Claimant>>,
    facts: &'a BTreeMap<NodeName, NodeFacts>,
}

#[derive(Default, PartialEq, Eq)]
struct Nodes {
    facts: BTreeMap<NodeName, NodeFacts>,
    /// Objects whose name is none, by that.
    nameless: BTreeMap<String, ClusterProblem>,
}

impl Index {
    /// Starts with what was kept on disk.
    pub(super) fn new(rules: Rules, saved: Option<Saved>) -> Self {
        let by_name = |facts: NodeFacts| (facts.name.clone(), facts);
        let saved = saved.unwrap_or_else(|| Saved::new(OffsetDateTime::UNIX_EPOCH));
        Self {
            rules,
            nodes: Nodes {
                facts: saved.nodes.into_iter().map(by_name).collect(),
                nameless: BTreeMap::new(),
            },
            listed: Nodes::default(),
            heard_nodes: false,
            config: LastConfig::saved(saved.ports_config),
            cluster: saved.cluster,
            claims: Claims::restored(saved.claims),
            shares_addresses: false,
        }
    }

    /// Takes an event of the watch on Nodes; whether the view may be another one now.
    pub(super) fn apply_node(&mut self, event: Event<NodeObject>) -> bool {
        match event {
            Event::Init => {
                self.listed = Nodes::default();
                false
            }
            Event::InitApply(object) => {
                self.listed.insert(&object);
                false
            }
            Event::InitDone => {
                let listed = mem::take(&mut self.listed);
                let first = !mem::replace(&mut self.heard_nodes, true);
                mem::replace(&mut self.nodes, listed) != self.nodes || first
            }
            Event::Apply(object) => self.nodes.insert(&object),
            Event::Delete(object) => self.nodes.remove(object.name()),
        }
    }

    /// Takes an event of the watch on the `ConfigMap`; whether the view may be another one now.
    pub(super) fn apply_config(&mut self, event: Event<ConfigMap>) -> bool {
        self.config.apply(event)
    }

    /// Takes the cluster's own addresses; whether the view may be another one now.
    pub(super) fn apply_cluster(&mut self, addresses: &ClusterAddresses) -> bool {
        let changed = self.cluster != *addresses;
        if changed {
            self.cluster = addresses.clone();
        }
        changed
    }

    /// Whether it matters who has a session: several Nodes claim one address.
    pub(super) fn shares_addresses(&self) -> bool {
        self.shares_addresses
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
    pub(super) fn to_save(&self, written_at: OffsetDateTime) -> Saved {
        let pods = self.pod_ranges(|_| true);
        let mut saved = Saved::new(written_at);
        saved.nodes = self.nodes.facts.values().cloned().collect();
        saved.ports_config.clone_from(&self.config.last);
        saved.cluster.clone_from(&self.cluster);
        saved.claims = self.claims.to_save(|address| pods.contains(address));
        saved
    }

    /// The `ConfigMap` as Events name it.
    pub(super) fn ports_config(&self) -> ObjectReference {
        self.config.reference(&self.rules.ports_config)
    }

    /// The snapshot, and what is wrong; settles who has which address.
    pub(super) fn view(&mut self, has_session: HasSession<'_>, now: OffsetDateTime) -> View {
        let asked = self.asked_ports();
        let mut claims = mem::take(&mut self.claims);
        let statements = self.statements(&claims);
        let speaks = |node: &NodeName| {
            let facts = self.nodes.facts.get(node);
            facts.is_some_and(|facts| !facts.internal.is_empty())
        };
        let settled = claims.settle(&statements.claims, speaks, has_session, now);
        let mut problems: BTreeSet<ClusterProblem> =
            self.nodes.nameless.values().cloned().collect();
        problems.extend(statements.problems());
        let Statements { tunnelled, .. } = statements;
        let uncaptured = tunnelled.iter().filter(|judged| !judged.outside.is_empty());
        let uncaptured =
            uncaptured.map(|judged| (judged.node.name.clone(), judged.outside.clone()));
        let uncaptured: Vec<_> = uncaptured.collect();
        let nodes = tunnelled.into_iter().map(|judged| judged.node);
        let shares_addresses = !settled.holders.is_empty();
        let (https, mut http) = (asked.https(), asked.http());
        http.insert(TunnelPort::KUBELET_READ_ONLY);
        let snapshot = Snapshot::new(nodes, self.tunnelled_ports(&asked))
            .with_loopback_ports(asked.loopback)
            .with_https_ports(https)
            .with_http_ports(http)
            .with_uncaptured(uncaptured)
            .with_holders(settled.holders);
        problems.extend(shared_addresses(&snapshot));
        problems.extend(settled.refused.into_iter().map(held_address));
        let of_ports = asked.problems.into_iter();
        problems.extend(of_ports.map(|problem| self.ports_problem(problem)));
        self.claims = claims;
        self.shares_addresses = shares_addresses;
        View {
            snapshot,
            clients: clients_of(self.nodes.facts.values(), &self.rules),
            problems,
            next_change: settled.next_change,
        }
    }

    /// Every Node, and what is spoken on the ports.
    pub(super) fn listing(&self) -> Listing {
        let listed = |facts: &NodeFacts| ListedNode {
            name: facts.name.clone(),
            place: if self.rules.is_tunnelled(facts) {
                NodePlace::Tunnelled
            } else {
                NodePlace::direct(facts)
            },
        };
        let knows_ports = self.config.heard || self.config.last.is_some();
        Listing {
            nodes: self.nodes.facts.values().map(listed).collect(),
            ports: knows_ports.then(|| self.asked_ports().schemes),
        }
    }

    /// What every Node says, as far as it counts.
    fn statements(&self, had: &Claims) -> Statements<'_> {
        let pods = self.pod_ranges(|range| {
            // Where the operator has said where nodes are, a Node's word that pods are among them
            // is no reason to shut new nodes out.
            self.rules.node_networks.is_unset() || !had.has_any_in(addresses_in(range))
        });
        let judge = Judge {
            rules: &self.rules,
            cluster: &self.cluster,
            pods: &pods,
            had: &|address, node| had.has(address, node),
        };
        let mut statements = Statements {
            tunnelled: Vec::new(),
            claims: BTreeMap::new(),
            facts: &self.nodes.facts,
        };
        for facts in self.nodes.facts.values() {
            if self.rules.is_tunnelled(facts) {
                let judged = judge.tunnelled(facts);
                let addresses = judged.node.addresses.iter().copied();
                statements.claim(facts, addresses, ClaimKind::Tunnelled);
                let external = facts.external.iter().copied();
                statements.claim(facts, external, ClaimKind::TunnelledExternal);
                statements.tunnelled.push(judged);
            } else {
                statements.claim(facts, facts.internal.iter().copied(), ClaimKind::Direct);
                let external = facts.external.iter().copied();
                statements.claim(facts, external, ClaimKind::DirectExternal);
            }
        }
        statements
    }

    fn pod_ranges(&self, counts: impl Fn(IpNet) -> bool) -> AddressRanges {
        let ranges = self
            .nodes
            .facts
            .values()
            .flat_map(|facts| &facts.pod_ranges);
        ranges.copied().filter(|range| counts(*range)).collect()
    }

    /// What is wrong with the `ConfigMap`.
    pub(super) fn ports_problem(&self, problem: PortsProblem) -> ClusterProblem {
        ClusterProblem::Ports {
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

impl Rules {
    pub(super) fn is_tunnelled(&self, facts: &NodeFacts) -> bool {
        let mut selectors = self.selectors.iter();
        !facts.is_server() && selectors.any(|selector| selector.matches(&facts.labels))
    }
}

impl Statements<'_> {
    /// Nodes are told in order, so that the claimants of each address are sorted.
    fn claim(
        &mut self,
        facts: &NodeFacts,
        addresses: impl Iterator<Item = IpAddr>,
        kind: ClaimKind,
    ) {
        for address in addresses {
            let claimants = self.claims.entry(address).or_default();
            if claimants.last().is_none_or(|last| last.node != facts.name) {
                let node = facts.name.clone();
                claimants.push(Claimant { node, kind });
            }
        }
    }

    fn problems(&self) -> Vec<ClusterProblem> {
        let of_node = |node: &NodeName, problem: NodeProblem| ClusterProblem::Node {
            node: node.clone(),
            problem,
        };
        let mut problems = Vec::new();
        for judged in &self.tunnelled {
            let of_judged = judged.problems.iter().cloned();
            problems.extend(of_judged.map(|problem| of_node(&judged.node.name, problem)));
        }
        for facts in self.facts.values() {
            if facts.is_server() {
                problems.push(of_node(&facts.name, NodeProblem::ServerName));
            }
            let ranges = facts.pod_ranges.iter().copied();
            let over_nodes = ranges.filter(|range| self.is_over_nodes(*range));
            let of_ranges = over_nodes.map(NodeProblem::PodRangeOverNodes);
            problems.extend(of_ranges.map(|problem| of_node(&facts.name, problem)));
        }
        problems
    }

    fn is_over_nodes(&self, pod_range: IpNet) -> bool {
        let mut within = self
            .claims
            .range(addresses_in(pod_range))
            .flat_map(|(_, claimants)| claimants);
        within.any(|claimant| claimant.kind == ClaimKind::Tunnelled)
    }
}

impl Nodes {
    fn insert(&mut self, object: &NodeObject) -> bool {
        match NodeFacts::read(object) {
            Ok(facts) => {
                let unchanged = self.facts.get(&facts.name) == Some(&facts);
                self.facts.insert(facts.name.clone(), facts);
                !unchanged
            }
            Err(error) => {
                let problem = ClusterProblem::node_name(&error);
                let before = self.nameless.insert(object.name().to_owned(), problem);
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

fn held_address(claim: RefusedClaim) -> ClusterProblem {
    let RefusedClaim {
        address,
        holders,
        refused,
    } = claim;
    ClusterProblem::HeldAddress {
        address,
        holders,
        nodes: refused,
    }
}

fn shared_addresses(snapshot: &Snapshot) -> impl Iterator<Item = ClusterProblem> {
    let conflicts = snapshot.conflicts().iter();
    conflicts.map(|conflict| ClusterProblem::SharedAddress {
        address: conflict.address,
        nodes: conflict.nodes.clone(),
    })
}

#[cfg(test)]
mod tests;
