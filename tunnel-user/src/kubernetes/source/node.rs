//! What matters of a Node object: whether it is tunnelled, its addresses, its kubelet's port, and
//! which certificates of its agent count.
//!
//! Of ten thousand Nodes the rest (images, conditions, managed fields) would be most of the memory,
//! so it is not even parsed.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    ClusterResourceScope, Resource as _,
    api::core::v1::{Node as ApiNode, NodeAddress, NodeDaemonEndpoints},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339, serde::rfc3339};

use super::index::Rules;
use crate::{
    kubernetes::certificates::kind::{SERVER_NODE_NAME, SERVER_SUBJECT},
    model::{Admits, InvalidNodeName, Node, NodeName, PortSet, TunnelPort, UnfitAddress},
};

/// A machine has fewer. Every node can write its own addresses; one of them must not fill the
/// kernel's table for all others.
const MOST_ADDRESSES: usize = 64;
/// Every node can state its kubelet's port as well, and would get what control planes send there.
const FIRST_UNPRIVILEGED: u16 = 1024;
/// Of etcd and the API server.
const CONTROL_PLANE: [u16; 3] = [2379, 2380, 6443];
/// An operator's word that certificates of the node's agent from before this time count no longer.
const NOT_BEFORE: &str = "culvert.dev/not-before";
const INTERNAL: &str = "InternalIP";
const EXTERNAL: &str = "ExternalIP";

/// A Node as the watch reads it.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub(super) struct NodeObject {
    metadata: ObjectMeta,
    created: Option<OffsetDateTime>,
    not_before: Option<String>,
    status: Status,
}

/// What a Node object says, as far as the snapshot depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodeFacts {
    pub(super) name: NodeName,
    /// Whether a selector matches it.
    pub(super) tunnelled: bool,
    /// Where it is tunnelled: what clients dial. Else: what no other node may take.
    pub(super) addresses: Vec<IpAddr>,
    /// Where it is not 10250.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kubelet_port: Option<TunnelPort>,
    /// When the object was created: an agent's certificate from before is of another machine, or of
    /// the same before it was set up anew.
    #[serde(default, with = "rfc3339::option")]
    created: Option<OffsetDateTime>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<Revoked>,
    #[serde(skip)]
    pub(super) problems: Vec<NodeProblem>,
}

/// Which certificates an operator has revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Revoked {
    /// Those that were issued before.
    Before(#[serde(with = "rfc3339")] OffsetDateTime),
    /// It cannot be read: all of them, for some are meant to be.
    Unreadable,
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
    /// An address that no node can have.
    #[error("its InternalIP {0} is the API server's: left out")]
    ApiServerAddress(IpAddr),
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
    /// What listens there on a control plane is no kubelet.
    #[error(
        "its kubelet's port {0} is one of those that no kubelet has (below 1024, etcd's, the API \
         server's): it is not captured"
    )]
    ForeignKubeletPort(TunnelPort),
    /// The kubelet listens where this server does.
    #[error(
        "its kubelet's port {0} is one of the server's own: it is not captured; give the server \
         another one (--redirect-port, --agent-port, --meta-port)"
    )]
    ReservedKubeletPort(TunnelPort),
}

#[derive(Deserialize)]
struct Wire {
    metadata: WireMetadata,
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

    fn addresses_of(&self, types: &[&str]) -> impl Iterator<Item = &str> {
        let all = self.status.addresses.iter().flatten();
        all.filter(move |address| types.contains(&address.type_.as_str()))
            .map(|address| address.address.as_str())
    }
}

impl NodeFacts {
    /// Reads a Node; fails if it has no name that a node can have.
    pub(super) fn read(object: &NodeObject, rules: &Rules) -> Result<Self, InvalidNodeName> {
        let none = BTreeMap::new();
        let labels = object.metadata.labels.as_ref().unwrap_or(&none);
        let name: NodeName = object.name().parse()?;
        let selected = rules
            .selectors
            .iter()
            .any(|selector| selector.matches(labels));
        let is_server = name.as_str() == SERVER_NODE_NAME;
        let mut facts = Self {
            name,
            tunnelled: selected && !is_server,
            addresses: Vec::new(),
            kubelet_port: None,
            created: None,
            revoked: None,
            problems: Vec::new(),
        };
        if facts.tunnelled {
            facts.created = object.created;
            facts.read_revoked(object);
            facts.read_addresses(object, &rules.api_server);
            facts.read_kubelet_port(object, &rules.reserved);
        } else {
            let taken = object.addresses_of(&[INTERNAL, EXTERNAL]);
            // Nobody dials them, so what is wrong with them is no problem.
            (facts.addresses, _) = usable_addresses(taken);
        }
        if is_server {
            facts.problems.push(NodeProblem::ServerName);
        }
        facts.addresses.shrink_to_fit();
        Ok(facts)
    }

    /// The node as snapshots have it.
    pub(super) fn node(&self) -> Node {
        Node {
            name: self.name.clone(),
            addresses: self.addresses.clone(),
            extra_ports: self.kubelet_port.into_iter().collect(),
            closed_gate: None,
            admits: self.admits(),
        }
    }

    fn admits(&self) -> Option<Admits> {
        match self.revoked {
            Some(Revoked::Unreadable) => Some(Admits::Nobody),
            Some(Revoked::Before(time)) => Some(Admits::IssuedSince(
                self.created.map_or(time, |created| created.max(time)),
            )),
            None => self.created.map(Admits::IssuedSince),
        }
    }

    fn read_revoked(&mut self, object: &NodeObject) {
        let Some(text) = &object.not_before else {
            return;
        };
        let time = OffsetDateTime::parse(text.trim(), &Rfc3339);
        self.revoked = Some(time.map_or(Revoked::Unreadable, Revoked::Before));
        if time.is_err() {
            let text = text.chars().take(64).collect();
            self.problems.push(NodeProblem::InvalidNotBefore(text));
        }
    }

    fn read_addresses(&mut self, object: &NodeObject, api_server: &[IpAddr]) {
        let problems;
        (self.addresses, problems) = usable_addresses(object.addresses_of(&[INTERNAL]));
        self.problems.extend(problems);
        let claimed = self
            .addresses
            .extract_if(.., |address| api_server.contains(address));
        self.problems
            .extend(claimed.map(NodeProblem::ApiServerAddress));
        if self.addresses.is_empty() {
            self.problems.push(NodeProblem::NoAddress);
        }
    }

    fn read_kubelet_port(&mut self, object: &NodeObject, reserved: &PortSet) {
        let endpoints = object.status.daemon_endpoints.as_ref();
        let endpoint = endpoints.and_then(|endpoints| endpoints.kubelet_endpoint.as_ref());
        // A kubelet that has not said anything yet is at port 0.
        let number = endpoint.map_or(0, |endpoint| endpoint.port);
        if number == 0 {
            return;
        }
        let port = u16::try_from(number).ok().and_then(TunnelPort::new);
        let problem = match port {
            None => NodeProblem::InvalidKubeletPort(number),
            Some(TunnelPort::KUBELET) => return,
            Some(port) if reserved.contains(&port) => NodeProblem::ReservedKubeletPort(port),
            Some(port)
                if port.number() < FIRST_UNPRIVILEGED || CONTROL_PLANE.contains(&port.number()) =>
            {
                NodeProblem::ForeignKubeletPort(port)
            }
            Some(port) => {
                self.kubelet_port = Some(port);
                return;
            }
        };
        self.problems.push(problem);
    }
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
