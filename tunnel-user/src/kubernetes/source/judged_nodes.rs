//! What counts of all Nodes' words, kept from one view to the next: a Node is judged again when something has changed
//! that its judgement depends on.
//!
//! | what has changed | who is judged again |
//! |---|---|
//! | what a Node says | that Node |
//! | the cluster's own addresses | who states one of those that came or went |
//! | a range of pods, or whether one counts | who states an address in it |

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
    sync::Arc,
};

use imbl::{OrdMap, ordmap::DiffItem};
use ipnet::IpNet;

use super::{
    ClusterProblem, NodeProblem,
    claims::{ClaimKind, Claimant, Claims, Stated},
    cluster_addresses::ClusterAddresses,
    index::Rules,
    judgement::{Judge, Judged},
    node::NodeFacts,
    pod_ranges::{PodRanges, addresses_in},
};
use crate::model::NodeName;

/// Every Node's facts, as they were heard.
pub(super) type Facts = OrdMap<NodeName, Arc<NodeFacts>>;

/// What follows from them.
#[derive(Default)]
pub(super) struct JudgedNodes {
    facts: Facts,
    cluster: ClusterAddresses,
    pods: PodRanges,
    /// Who says that it has which `InternalIP`, whether that counts or not.
    saying: BTreeMap<IpAddr, BTreeSet<NodeName>>,
    /// What of that counts.
    stated: Stated,
    /// The same by node; nodes that state nothing are not there.
    claims_of: BTreeMap<NodeName, Vec<(IpAddr, ClaimKind)>>,
    problems: BTreeMap<NodeName, Vec<NodeProblem>>,
    /// Ranges of pods in which tunnelled nodes have addresses.
    over_nodes: BTreeSet<IpNet>,
    /// To be judged again although they say what they said.
    again: BTreeSet<NodeName>,
}

/// What is other than at the last look.
#[derive(Default)]
pub(super) struct Differences {
    /// Every Node that was judged again: its judgement if it is tunnelled.
    pub(super) nodes: Vec<(NodeName, Option<Judged>)>,
    /// Addresses of which any Node may state something else.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Whether a Node that is not tunnelled is another than before.
    pub(super) direct_nodes: bool,
}

impl JudgedNodes {
    /// Looks at what has changed. `claims` are those of the last look.
    pub(super) fn look(
        &mut self,
        facts: &Facts,
        cluster: &ClusterAddresses,
        rules: &Rules,
        claims: &Claims,
    ) -> Differences {
        let mut differences = Differences::default();
        let mut judge = mem::take(&mut self.again);
        let mut ranges = BTreeSet::new();
        let before = mem::replace(&mut self.facts, facts.clone());
        for change in before.diff(facts) {
            let (old, new) = match change {
                DiffItem::Add(_, new) => (None, Some(new)),
                DiffItem::Remove(_, old) => (Some(old), None),
                DiffItem::Update { old, new } => (Some(old.1), Some(new.1)),
            };
            for facts in old.into_iter().chain(new) {
                judge.insert(facts.name.clone());
                differences.direct_nodes |= !rules.is_tunnelled(facts);
            }
            let of = |facts: Option<&Arc<NodeFacts>>| -> BTreeSet<IpNet> {
                let ranges = facts.iter().flat_map(|facts| &facts.pod_ranges);
                ranges.map(IpNet::trunc).collect()
            };
            ranges.extend(of(old).symmetric_difference(&of(new)));
            self.hear(old.map(Arc::as_ref), new.map(Arc::as_ref));
        }
        for address in self.cluster.differing(cluster) {
            judge.extend(self.saying.get(&address).into_iter().flatten().cloned());
        }
        self.cluster.clone_from(cluster);
        for range in ranges.iter().copied().map(addresses_in) {
            let saying = self.saying.range(range.clone());
            judge.extend(saying.flat_map(|(_, nodes)| nodes).cloned());
            differences.addresses.extend(claims.claimed_in(range));
        }
        for name in judge {
            let judged = self.judge(&name, rules, claims, &mut differences.addresses);
            differences.nodes.push((name, judged));
        }
        let changed = differences.addresses.iter();
        ranges.extend(changed.flat_map(|address| self.pods.around(*address)));
        self.find_nodes_in(ranges);
        differences
    }

    /// Nodes have these addresses now and none had before, or the reverse: whether a range of pods counts may follow
    /// from that.
    pub(super) fn have_become_taken_or_free(&mut self, addresses: &[IpAddr]) {
        let ranges = addresses
            .iter()
            .flat_map(|address| self.pods.around(*address));
        for range in ranges.collect::<BTreeSet<_>>() {
            let saying = self.saying.range(addresses_in(range));
            self.again
                .extend(saying.flat_map(|(_, nodes)| nodes).cloned());
        }
    }

    /// What Nodes state, as far as it counts.
    pub(super) fn stated(&self) -> &Stated {
        &self.stated
    }

    /// Whether the address is in any range of pods, whether that counts or not.
    pub(super) fn is_in_pods(&self, address: IpAddr) -> bool {
        self.pods.around(address).next().is_some()
    }

    /// What is wrong with Nodes.
    pub(super) fn problems(&self) -> impl Iterator<Item = ClusterProblem> {
        let of_node = |node: &NodeName, problem| ClusterProblem::Node {
            node: node.clone(),
            problem,
        };
        let of_nodes = self.problems.iter().flat_map(move |(node, problems)| {
            let problems = problems.iter().cloned();
            problems.map(move |problem| of_node(node, problem))
        });
        let over_nodes = self.over_nodes.iter().flat_map(move |range| {
            let nodes = self.pods.nodes_of(*range);
            nodes.map(move |node| of_node(node, NodeProblem::PodRangeOverNodes(*range)))
        });
        of_nodes.chain(over_nodes)
    }

    /// The Node says this now.
    fn hear(&mut self, old: Option<&NodeFacts>, new: Option<&NodeFacts>) {
        if let Some(facts) = old {
            for range in &facts.pod_ranges {
                self.pods.remove(*range, &facts.name);
            }
            for address in &facts.internal {
                if let Some(nodes) = self.saying.get_mut(address) {
                    nodes.remove(&facts.name);
                    if nodes.is_empty() {
                        self.saying.remove(address);
                    }
                }
            }
        }
        if let Some(facts) = new {
            for range in &facts.pod_ranges {
                self.pods.insert(*range, &facts.name);
            }
            for address in &facts.internal {
                let nodes = self.saying.entry(*address).or_default();
                nodes.insert(facts.name.clone());
            }
        }
    }

    /// Puts into place what counts of the Node's words now, and adds whatever address that concerns.
    fn judge(
        &mut self,
        name: &NodeName,
        rules: &Rules,
        claims: &Claims,
        changed: &mut BTreeSet<IpAddr>,
    ) -> Option<Judged> {
        let facts = self.facts.get(name).cloned();
        let is_tunnelled = |facts: &Arc<NodeFacts>| rules.is_tunnelled(facts);
        let tunnelled = facts.as_ref().filter(|facts| is_tunnelled(facts));
        let judged = tunnelled.map(|facts| self.judgement(facts, rules, claims));
        let mut problems = judged
            .as_ref()
            .map_or_else(Vec::new, |judged| judged.problems.clone());
        if facts.as_ref().is_some_and(|facts| facts.is_server()) {
            problems.push(NodeProblem::ServerName);
        }
        put(&mut self.problems, name, problems);
        let stated = facts
            .as_ref()
            .map(|facts| statements(facts, judged.as_ref()));
        self.state(name, stated.unwrap_or_default(), changed);
        judged
    }

    fn judgement(&self, facts: &NodeFacts, rules: &Rules, claims: &Claims) -> Judged {
        // Where the operator has said where nodes are, a Node's word that pods are among them is no reason to shut new
        // nodes out.
        let counts =
            |range| rules.node_networks.is_unset() || !claims.has_any_in(addresses_in(range));
        let judge = Judge {
            rules,
            cluster: &self.cluster,
            is_pods: &|address| self.pods.around(address).any(counts),
            had: &|address, node| claims.has(address, node),
        };
        judge.tunnelled(facts)
    }

    fn state(
        &mut self,
        node: &NodeName,
        claims: Vec<(IpAddr, ClaimKind)>,
        changed: &mut BTreeSet<IpAddr>,
    ) {
        let before = self.claims_of.remove(node).unwrap_or_default();
        for (address, _) in before {
            changed.insert(address);
            if let Some(claimants) = self.stated.get_mut(&address) {
                claimants.retain(|claimant| claimant.node != *node);
                if claimants.is_empty() {
                    self.stated.remove(&address);
                }
            }
        }
        for &(address, kind) in &claims {
            changed.insert(address);
            let claimants = self.stated.entry(address).or_default();
            let at = claimants.partition_point(|claimant| claimant.node < *node);
            let node = node.clone();
            claimants.insert(at, Claimant { node, kind });
        }
        put(&mut self.claims_of, node, claims);
    }

    fn find_nodes_in(&mut self, ranges: BTreeSet<IpNet>) {
        for range in ranges {
            let mut claimants = self
                .stated
                .range(addresses_in(range))
                .flat_map(|(_, all)| all);
            let is_over = self.pods.nodes_of(range).next().is_some()
                && claimants.any(|claimant| claimant.kind == ClaimKind::Tunnelled);
            if is_over {
                self.over_nodes.insert(range);
            } else {
                self.over_nodes.remove(&range);
            }
        }
    }
}

/// What the Node claims, each address once: as what clients dial, before anything else.
fn statements(facts: &NodeFacts, judged: Option<&Judged>) -> Vec<(IpAddr, ClaimKind)> {
    let (internal, kinds) = match judged {
        Some(judged) => (
            &judged.node.addresses,
            [ClaimKind::Tunnelled, ClaimKind::TunnelledExternal],
        ),
        None => (
            &facts.internal,
            [ClaimKind::Direct, ClaimKind::DirectExternal],
        ),
    };
    let internal = internal.iter().map(|address| (*address, kinds[0]));
    let external = facts.external.iter().map(|address| (*address, kinds[1]));
    let mut seen = BTreeSet::new();
    let all = internal.chain(external);
    all.filter(|(address, _)| seen.insert(*address)).collect()
}

fn put<T>(by_node: &mut BTreeMap<NodeName, Vec<T>>, node: &NodeName, list: Vec<T>) {
    if list.is_empty() {
        by_node.remove(node);
    } else {
        by_node.insert(node.clone(), list);
    }
}
