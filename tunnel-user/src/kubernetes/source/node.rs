//! What matters of a Node object, as it says it: labels, addresses, its kubelet's port, its pods'
//! range, and which certificates of its agent count. What of that counts is [`judgement`](super::judgement)'s business,
//! for the rules may be others when it is read from disk again.
//!
//! Of ten thousand Nodes the rest (images, conditions, managed fields) would be most of the memory,
//! so it is not even parsed.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::{
    ClusterResourceScope, Resource as _,
    api::core::v1::{Node as ApiNode, NodeAddress, NodeDaemonEndpoints},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, serde::rfc3339};

use super::judgement::NodeProblem;
use crate::{
    kubernetes::certificates::kind::SERVER_NODE_NAME,
    model::{InvalidNodeName, NodeName, UnfitAddress},
};

/// A machine has fewer. Every node can write its own addresses; one of them must not fill the
/// kernel's table for all others.
pub(super) const MOST_ADDRESSES: usize = 64;
/// One of each family is what there is.
const MOST_POD_RANGES: usize = 8;
/// The longest text of an annotation that is kept: a time is shorter.
const LONGEST_TIME: usize = 64;
const INTERNAL: &str = "InternalIP";
const EXTERNAL: &str = "ExternalIP";

/// A Node as the watch reads it.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub(super) struct NodeObject {
    metadata: ObjectMeta,
    created: Option<OffsetDateTime>,
    not_before: Option<String>,
    spec: Spec,
    status: Status,
}

/// What a Node object says, as far as the snapshot may depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeFacts {
    pub(super) name: NodeName,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<String, String>,
    /// Of its `InternalIP`s those that any machine could have.
    pub(super) internal: Vec<IpAddr>,
    /// The same of its `ExternalIP`s.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) external: Vec<IpAddr>,
    /// Its kubelet's port; 0 where it says none.
    #[serde(default)]
    pub(super) kubelet_port: i32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) pod_ranges: Vec<IpNet>,
    /// When the object was created: an agent's certificate from before is of another machine, or of
    /// the same before it was set up anew.
    #[serde(default, with = "rfc3339::option")]
    pub(super) created: Option<OffsetDateTime>,
    /// An operator's word on the certificates of its agent, as it stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) not_before: Option<String>,
    /// What is wrong with its `InternalIP`s under any rules.
    #[serde(skip)]
    pub(super) problems: Vec<NodeProblem>,
}

#[derive(Deserialize)]
struct Wire {
    metadata: WireMetadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireMetadata {
    name: Option<String>,
    resource_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    #[serde(default, with = "rfc3339::option")]
    creation_timestamp: Option<OffsetDateTime>,
    annotations: Option<WireAnnotations>,
}

/// The one that is read, of many that may be long.
#[derive(Deserialize)]
struct WireAnnotations {
    #[serde(rename = "culvert.dev/not-before")]
    not_before: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    addresses: Option<Vec<NodeAddress>>,
    daemon_endpoints: Option<NodeDaemonEndpoints>,
}

impl NodeObject {
    pub(super) fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn annotate(&mut self, not_before: &str) {
        self.not_before = Some(not_before.to_owned());
    }

    #[cfg(test)]
    pub(super) fn with_pod_range(mut self, range: &str) -> Self {
        self.spec.pod_cidr = Some(range.to_owned());
        self
    }

    fn addresses_of(&self, kind: &str) -> impl Iterator<Item = &str> {
        let all = self.status.addresses.iter().flatten();
        all.filter(move |address| address.type_ == kind)
            .map(|address| address.address.as_str())
    }

    fn kubelet_port(&self) -> i32 {
        let endpoints = self.status.daemon_endpoints.as_ref();
        let endpoint = endpoints.and_then(|endpoints| endpoints.kubelet_endpoint.as_ref());
        // A kubelet that has not said anything yet is at port 0.
        endpoint.map_or(0, |endpoint| endpoint.port)
    }

    /// The API server lets nothing pass that is no network.
    fn pod_ranges(&self) -> impl Iterator<Item = IpNet> {
        let all = self.spec.pod_cidrs.iter().flatten();
        let all = all.chain(&self.spec.pod_cidr);
        all.filter_map(|range| range.parse().ok())
    }
}

impl NodeFacts {
    /// Reads a Node; fails if it has no name that a node can have.
    pub(super) fn read(object: &NodeObject) -> Result<Self, InvalidNodeName> {
        let (mut internal, problems) = usable_addresses(object.addresses_of(INTERNAL));
        // Nobody dials them, so what is wrong with them is no problem.
        let (mut external, _) = usable_addresses(object.addresses_of(EXTERNAL));
        internal.shrink_to_fit();
        external.shrink_to_fit();
        let mut pod_ranges: Vec<IpNet> = object.pod_ranges().take(MOST_POD_RANGES).collect();
        pod_ranges.sort();
        pod_ranges.dedup();
        Ok(Self {
            name: object.name().parse()?,
            labels: object.metadata.labels.clone().unwrap_or_default(),
            internal,
            external,
            kubelet_port: object.kubelet_port(),
            pod_ranges,
            created: object.created,
            not_before: object.not_before.as_deref().map(cut),
            problems,
        })
    }

    /// Whether its name makes its kubelet's certificate look like a server's.
    pub(super) fn is_server(&self) -> bool {
        self.name.as_str() == SERVER_NODE_NAME
    }
}

/// What is cut off could have made it another time, so that what is left must not be one.
fn cut(time: &str) -> String {
    let mut kept: String = time.chars().take(LONGEST_TIME).collect();
    if kept.len() < time.len() {
        kept.push('…');
    }
    kept
}

/// Those of a Node's addresses that count, in order, and what is wrong with the others. The
/// agent's certificate names what this makes of them, and the approver allows what this makes of
/// them.
pub(in crate::kubernetes) fn usable_addresses<'a>(
    internal: impl Iterator<Item = &'a str>,
) -> (Vec<IpAddr>, Vec<NodeProblem>) {
    let mut addresses = Vec::new();
    let mut problems = Vec::new();
    for text in internal {
        let Ok(address) = text.parse::<IpAddr>() else {
            let text = text.chars().take(64).collect();
            problems.push(NodeProblem::InvalidAddress(text));
            continue;
        };
        let address = address.to_canonical();
        if let Some(unfit) = UnfitAddress::check(address) {
            problems.push(NodeProblem::UnfitAddress(address, unfit));
        } else if addresses.len() == MOST_ADDRESSES {
            let most = MOST_ADDRESSES;
            problems.push(NodeProblem::TooManyAddresses { most });
            break;
        } else if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    problems.truncate(MOST_ADDRESSES);
    (addresses, problems)
}

impl From<Wire> for NodeObject {
    fn from(wire: Wire) -> Self {
        Self {
            metadata: ObjectMeta {
                name: wire.metadata.name,
                resource_version: wire.metadata.resource_version,
                labels: wire.metadata.labels,
                ..ObjectMeta::default()
            },
            created: wire.metadata.creation_timestamp,
            not_before: wire
                .metadata
                .annotations
                .and_then(|annotations| annotations.not_before),
            spec: wire.spec,
            status: wire.status,
        }
    }
}

impl kube::Resource for NodeObject {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        ApiNode::KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        ApiNode::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        ApiNode::VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        ApiNode::URL_PATH_SEGMENT.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests;
