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
    sync::Arc,
};

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::runtime::watcher::Event;

use time::OffsetDateTime;

use super::{
    ClusterProblem, NodeSelector, PortsProblem,
    claims::{ClaimKind, Claims, Evidence, HasSession, RefusedClaim, Settled},
    client_ranges::clients_of,
    cluster_addresses::ClusterAddresses,
    judged_nodes::JudgedNodes,
    judgement::Judged,
    listing::Listing,
    node::{NodeFacts, NodeObject},
    nodes::Nodes,
    ports::Ports,
    ports_config::LastConfig,
    saved::Saved,
};
use crate::{
    kubernetes::ObjectName,
    model::{AddressHolder, AddressRanges, NodeName, NodeNetworks, PortSet, Snapshot, TunnelPort},
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
    /// What follows from all that by the last view.
    judged: JudgedNodes,
    snapshot: Snapshot,
    clients: Arc<AddressRanges>,
}

/// What follows from it.
pub(super) struct View {
    pub(super) snapshot: Snapshot,
    /// Where the cluster's own clients come from.
    pub(super) clients: Arc<AddressRanges>,
    /// Nodes that are not tunnelled, in number.
    pub(super) cloud_nodes: usize,
    pub(super) problems: BTreeSet<ClusterProblem>,
    /// When time alone may change it.
    pub(super) next_change: Option<OffsetDateTime>,
}

impl Index {
    /// Starts with what was kept on disk.
    pub(super) fn new(rules: Rules, saved: Option<Saved>) -> Self {
        let saved = saved.unwrap_or_else(|| Saved::new(OffsetDateTime::UNIX_EPOCH));
        Self {
            nodes: Nodes::restored(saved.nodes, &rules),
            rules,
            listed: Nodes::default(),
            heard_nodes: false,
            config: LastConfig::saved(saved.ports_config),
            cluster: saved.cluster,
            claims: Claims::restored(saved.claims),
            shares_addresses: false,
            judged: JudgedNodes::default(),
            snapshot: Snapshot::default(),
            clients: Arc::default(),
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
        let mut saved = Saved::new(written_at);
        saved.nodes = self.nodes.facts.clone();
        saved.ports_config.clone_from(&self.config.last);
        saved.cluster.clone_from(&self.cluster);
        saved.claims = self.claims.to_save();
        saved
    }

    /// The `ConfigMap` as Events name it.
    pub(super) fn ports_config(&self) -> ObjectReference {
        self.config.reference(&self.rules.ports_config)
    }

    /// The snapshot, and what is wrong; settles who has which address. It costs what has changed since the last one,
    /// and what several Nodes claim.
    pub(super) fn view(&mut self, has_session: HasSession<'_>, now: OffsetDateTime) -> View {
        let facts = &self.nodes.facts;
        let differences = self
            .judged
            .look(facts, &self.cluster, &self.rules, &self.claims);
        if differences.direct_nodes {
            let facts = facts.values().map(Arc::as_ref);
            self.clients = Arc::new(clients_of(facts, &self.rules));
        }
        let evidence = Evidence {
            stated: self.judged.stated(),
            speaks: &|node| {
                facts
                    .get(node)
                    .is_some_and(|facts| !facts.internal.is_empty())
            },
            has_session,
            is_in_pods: &|address| self.judged.is_in_pods(address),
        };
        let settled = self.claims.settle(&differences.addresses, &evidence, now);
        self.judged
            .have_become_taken_or_free(&settled.taken_or_free);
        self.edit_snapshot(differences.nodes, &settled);
        self.shares_addresses = !settled.holders.is_empty();
        let asked = self.asked_ports();
        let mut problems: BTreeSet<ClusterProblem> =
            self.nodes.nameless.values().cloned().collect();
        problems.extend(self.judged.problems());
        problems.extend(shared_addresses(&self.snapshot));
        problems.extend(settled.refused.into_iter().map(held_address));
        let of_ports = asked.problems.iter().cloned();
        problems.extend(of_ports.map(|problem| self.ports_problem(problem)));
        View {
            snapshot: self.with_ports(asked),
            clients: Arc::clone(&self.clients),
            cloud_nodes: self.nodes.facts.len() - self.snapshot.nodes().len(),
            problems,
            next_change: settled.next_change,
        }
    }

    /// The next view is made from nothing but what was heard, and who had which address.
    #[cfg(test)]
    fn forget_what_follows(&mut self) {
        self.judged = JudgedNodes::default();
        self.snapshot = Snapshot::default();
        self.clients = Arc::default();
        self.claims.open_all();
    }

    /// Puts into the snapshot what has changed.
    fn edit_snapshot(&mut self, nodes: Vec<(NodeName, Option<Judged>)>, settled: &Settled) {
        for (name, judged) in nodes {
            let Some(judged) = judged else {
                self.snapshot.remove_node(&name);
                continue;
            };
            self.snapshot.set_uncaptured(&name, &judged.outside);
            if self.snapshot.node(&name) != Some(&judged.node) {
                self.snapshot.set_node(judged.node);
            }
        }
        let mut contested: BTreeMap<_, _> = settled.holders.iter().cloned().collect();
        for address in &settled.looked_at {
            let holder = contested.remove(address);
            let holder = holder.unwrap_or_else(|| self.only_claimant(*address));
            self.snapshot.set_holder(*address, holder);
        }
    }

    /// Who has an address that no two Nodes contest.
    fn only_claimant(&self, address: IpAddr) -> AddressHolder {
        match self.judged.stated().get(&address).map(Vec::as_slice) {
            Some([only]) if only.kind == ClaimKind::Tunnelled => {
                AddressHolder::Node(only.node.clone())
            }
            _ => AddressHolder::Outside,
        }
    }

    fn with_ports(&self, asked: Ports) -> Snapshot {
        let (https, mut http) = (asked.https(), asked.http());
        http.insert(TunnelPort::KUBELET_READ_ONLY);
        let snapshot = self.snapshot.clone();
        snapshot
            .with_ports(self.tunnelled_ports(&asked))
            .with_loopback_ports(asked.loopback)
            .with_https_ports(https)
            .with_http_ports(http)
    }

    /// Every Node, and what is spoken on the ports.
    pub(super) fn listing(&self) -> Listing {
        let knows_ports = self.config.heard || self.config.last.is_some();
        Listing {
            nodes: self.nodes.places.clone(),
            ports: knows_ports.then(|| self.asked_ports().schemes),
        }
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
    snapshot
        .conflicts()
        .map(|conflict| ClusterProblem::SharedAddress {
            address: conflict.address,
            nodes: conflict.nodes.clone(),
        })
}

#[cfg(test)]
mod tests;
