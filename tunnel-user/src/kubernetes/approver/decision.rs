//! Whether a certificate request is to be approved.
//!
//! Signer, usages, subject and names must be exactly right, *and* the requester must be the one
//! whose certificate it is: a node, or a pod on it, for the agent of that node; the server itself
//! for the server; a server on that machine for what other servers, or kubelets, know it by. What may become right
//! without another request is left pending.

use std::{net::IpAddr, time::Duration};

use humantime::format_duration;

use super::{
    csr_request::{ClaimedNames, CsrRequest, LONGEST_REQUEST, MOST_NAMES, Requester},
    queue::MOST_OF_ONE,
};
use crate::{
    kubernetes::{
        CertificateNames, ObjectName,
        certificates::kind::{CertificateKind, PROXY, RELAY, SERVER},
    },
    model::{NodeName, Snapshot},
};

/// How long a name may be asked for that we do not know: who asks may have seen a change sooner.
/// It counts from when this leader saw the request, for the clock of another machine may be wrong.
pub(super) const CHANGE_TIME: Duration = Duration::from_mins(1);

/// What the approver knows when it decides.
pub(super) struct Knowledge<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// The user that this server is, once the API server has told.
    pub(super) own_user: Option<&'a str>,
    /// The names that servers have.
    pub(super) names: Option<&'a CertificateNames>,
    /// Whose pods are agents.
    pub(super) agents: &'a ObjectName,
    /// Whose pods are servers that only relay.
    pub(super) relays: &'a ObjectName,
    /// The longest life that an agent may ask for.
    pub(super) longest_life: Duration,
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Approve,
    /// For good.
    Deny(Denial),
    /// For now.
    Leave(PendingReason),
}

/// Why a request can never be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denial {
    #[error(
        "it is larger than any request of a server or an agent: at most {LONGEST_REQUEST} bytes, {MOST_NAMES} DNS names and {MOST_NAMES} addresses"
    )]
    TooLarge,
    #[error(
        "its requester has made {MOST_OF_ONE} newer ones that cannot be decided either: what waits is bounded, make a new one once the reason is gone"
    )]
    TooMany,
    #[error("the subject must be exactly CN={}, O={}", .0.subject.common_name, .0.subject.organization)]
    Subject(&'static CertificateKind),
    #[error("the usages must be exactly: {}", .0.usages.join(", "))]
    Usages(&'static CertificateKind),
    #[error("it asks for more than names, or its names cannot be read")]
    Extensions,
    #[error("it asks for names that are neither host names nor addresses")]
    KindOfNames,
    #[error("an agent's request names exactly one node as its DNS name, but this one names {0}")]
    NotOneNode(usize),
    #[error("{0:?} is not the name of a node")]
    NodeName(String),
    #[error(
        "it must say for how long (expirationSeconds), at most {}: that is the \
         server's --agent-certificate-ttl",
        format_duration(*.0)
    )]
    Life(Duration),
    #[error("it asks for no address")]
    NoAddress,
    #[error("it asks for no name")]
    NoName,
    #[error(
        "{requester} may not ask for the certificate of node {node}: only system:node:{node} and pods of {agents} on that node may"
    )]
    NotOfNode {
        requester: String,
        node: NodeName,
        agents: ObjectName,
    },
    #[error("{0} may not ask for the server's certificate: only the server itself may")]
    NotTheServer(String),
    #[error("the request of another's client names the machine of its server, and no address")]
    MachineAddress,
    #[error(
        "{requester} may not ask for the certificate of a server on {machine}: only servers and pods of {relays} on that machine may"
    )]
    NotARelay {
        requester: String,
        machine: NodeName,
        relays: ObjectName,
    },
    #[error(
        "{requester} may not ask for the certificate by which kubelets know a server on {machine}: only a server on \
         that machine may"
    )]
    NotAServer {
        requester: String,
        machine: NodeName,
    },
    #[error("node {node} does not have these addresses: {}", list(.addresses))]
    Addresses {
        node: NodeName,
        addresses: Vec<IpAddr>,
    },
    #[error("the servers do not have these names: {0}")]
    Names(CertificateNames),
}

/// Why a request cannot be judged yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PendingReason {
    #[error(
        "there is no tunnelled node {0}: does its Node object exist, with the label that --node-selector asks for?"
    )]
    UnknownNode(NodeName),
    #[error(
        "the API server does not say on which node the pod of {0} runs: it must be of version 1.30 or newer, and the token that of a pod; or let the agent use the kubelet's kubeconfig"
    )]
    PodWithoutNode(String),
    #[error("node {node} does not have these addresses yet: {}", list(.addresses))]
    Addresses {
        node: NodeName,
        addresses: Vec<IpAddr>,
    },
    #[error("which user this server is, is not known yet")]
    OwnUser,
    #[error("the names of the servers are not known yet")]
    NoNames,
    #[error("the servers do not have these names yet: {0}")]
    Names(CertificateNames),
}

/// What has to change before a pending request can be decided.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Dependency {
    /// What the snapshot says of this node.
    Node(NodeName),
    OwnUser,
    /// The names that servers have.
    Names,
    /// The requester has to make another request.
    Request,
}

impl PendingReason {
    pub(super) fn dependency(&self) -> Dependency {
        match self {
            Self::UnknownNode(node) | Self::Addresses { node, .. } => {
                Dependency::Node(node.clone())
            }
            Self::PodWithoutNode(_) => Dependency::Request,
            Self::OwnUser => Dependency::OwnUser,
            Self::NoNames | Self::Names(_) => Dependency::Names,
        }
    }

    /// Whether it becomes a denial once the request has been known for [`CHANGE_TIME`].
    pub(super) fn is_short(&self) -> bool {
        matches!(self, Self::Addresses { .. } | Self::Names(_))
    }
}

/// Decides on a request that has been known for so long.
pub(super) fn decide(
    csr_request: &CsrRequest,
    age: Duration,
    knowledge: &Knowledge<'_>,
) -> Decision {
    let decided = well_formed(csr_request).and_then(|names| {
        let requester = &csr_request.requester;
        if *csr_request.kind == SERVER {
            return server(names, requester, age, knowledge);
        }
        has_an_end(csr_request, knowledge.longest_life)?;
        match csr_request.kind {
            kind if *kind == RELAY => relay(names, requester, knowledge),
            kind if *kind == PROXY => proxy(names, requester, knowledge),
            _ => agent(names, requester, age, knowledge),
        }
    });
    match decided {
        Ok(()) => Decision::Approve,
        Err(decision) => decision,
    }
}

fn well_formed(csr_request: &CsrRequest) -> Result<&ClaimedNames, Decision> {
    let CsrRequest { kind, .. } = csr_request;
    if csr_request.is_too_large {
        return Err(Denial::TooLarge.into());
    }
    if !csr_request.subject_is_exact {
        return Err(Denial::Subject(kind).into());
    }
    if csr_request.usages != kind.usages {
        return Err(Denial::Usages(kind).into());
    }
    let names = csr_request.names.as_ref().ok_or(Denial::Extensions)?;
    if names.others > 0 {
        return Err(Denial::KindOfNames.into());
    }
    Ok(names)
}

/// Who takes a key from a node should not have it for as long as the signer likes.
fn has_an_end(csr_request: &CsrRequest, longest: Duration) -> Result<(), Decision> {
    match csr_request.life {
        Some(life) if life <= longest => Ok(()),
        Some(_) | None => Err(Denial::Life(longest).into()),
    }
}

fn agent(
    names: &ClaimedNames,
    requester: &Requester,
    age: Duration,
    knowledge: &Knowledge<'_>,
) -> Result<(), Decision> {
    let [name] = &names.dns[..] else {
        return Err(Denial::NotOneNode(names.dns.len()).into());
    };
    let node: NodeName = name.parse().map_err(|_| Denial::NodeName(name.clone()))?;
    if names.ips.is_empty() {
        return Err(Denial::NoAddress.into());
    }
    is_of_node(requester, &node, knowledge.agents)?;
    if knowledge.snapshot.node(&node).is_none() {
        return Err(PendingReason::UnknownNode(node).into());
    }
    let addresses: Vec<_> = names
        .ips
        .iter()
        .copied()
        .filter(|ip| !knowledge.snapshot.states(&node, *ip))
        .collect();
    match () {
        () if addresses.is_empty() => Ok(()),
        () if age < CHANGE_TIME => Err(PendingReason::Addresses { node, addresses }.into()),
        () => Err(Denial::Addresses { node, addresses }.into()),
    }
}

/// The kubelet's own identity, or that of an agent's pod on the node: the API server vouches for
/// either.
fn is_of_node(requester: &Requester, node: &NodeName, agents: &ObjectName) -> Result<(), Decision> {
    let is_in = |group: &str| requester.groups.iter().any(|is_in| is_in == group);
    let username = &requester.username;
    let is_agent =
        *username == format!("system:serviceaccount:{}:{}", agents.namespace, agents.name);
    if *username == format!("system:node:{node}") && is_in("system:nodes") {
        return Ok(());
    }
    match &requester.pod_node[..] {
        [pod_node] if is_agent && pod_node == node.as_str() => Ok(()),
        [] if is_agent => Err(PendingReason::PodWithoutNode(username.clone()).into()),
        _ => Err(Denial::NotOfNode {
            requester: username.clone(),
            node: node.clone(),
            agents: agents.clone(),
        }
        .into()),
    }
}

fn server(
    names: &ClaimedNames,
    requester: &Requester,
    age: Duration,
    knowledge: &Knowledge<'_>,
) -> Result<(), Decision> {
    let own_user = knowledge.own_user.ok_or(PendingReason::OwnUser)?;
    if requester.username != own_user {
        return Err(Denial::NotTheServer(requester.username.clone()).into());
    }
    let asked = CertificateNames {
        dns: names.dns.iter().cloned().collect(),
        ips: names.ips.iter().copied().collect(),
    };
    if asked.is_empty() {
        return Err(Denial::NoName.into());
    }
    let unknown = asked.without(knowledge.names.ok_or(PendingReason::NoNames)?);
    match () {
        () if unknown.is_empty() => Ok(()),
        () if age < CHANGE_TIME => Err(PendingReason::Names(unknown).into()),
        () => Err(Denial::Names(unknown).into()),
    }
}

/// A server, or one that does nothing but relay.
fn relay(
    names: &ClaimedNames,
    requester: &Requester,
    knowledge: &Knowledge<'_>,
) -> Result<(), Decision> {
    let relays = knowledge.relays;
    on_its_machine(
        names,
        requester,
        knowledge,
        Some(relays),
        |requester, machine| {
            let relays = relays.clone();
            Denial::NotARelay {
                requester,
                machine,
                relays,
            }
        },
    )
}

/// A server; neither an agent nor one that only relays. Whoever has this may do to every kubelet what
/// the group `culvert:proxy` may.
fn proxy(
    names: &ClaimedNames,
    requester: &Requester,
    knowledge: &Knowledge<'_>,
) -> Result<(), Decision> {
    on_its_machine(names, requester, knowledge, None, |requester, machine| {
        Denial::NotAServer { requester, machine }
    })
}

/// A server, or a pod of `others`, on the machine that it names: the API server vouches for where a pod is. A server's
/// own identity could approve any request, so without a pod it is taken at its word.
fn on_its_machine(
    names: &ClaimedNames,
    requester: &Requester,
    knowledge: &Knowledge<'_>,
    others: Option<&ObjectName>,
    denial: impl FnOnce(String, NodeName) -> Denial,
) -> Result<(), Decision> {
    let machine = one_machine(names)?;
    let own_user = knowledge.own_user.ok_or(PendingReason::OwnUser)?;
    let username = &requester.username;
    let is_server = *username == own_user;
    let is_other = others.is_some_and(|others| {
        *username == format!("system:serviceaccount:{}:{}", others.namespace, others.name)
    });
    match &requester.pod_node[..] {
        [pod_node] if pod_node == machine.as_str() && (is_server || is_other) => Ok(()),
        [] if is_server => Ok(()),
        [] if is_other => Err(PendingReason::PodWithoutNode(username.clone()).into()),
        _ => Err(denial(username.clone(), machine).into()),
    }
}

/// The machine that a server names, and nothing else.
fn one_machine(names: &ClaimedNames) -> Result<NodeName, Decision> {
    let [name] = &names.dns[..] else {
        return Err(Denial::NotOneNode(names.dns.len()).into());
    };
    let machine = name.parse().map_err(|_| Denial::NodeName(name.clone()))?;
    if names.ips.is_empty() {
        Ok(machine)
    } else {
        Err(Denial::MachineAddress.into())
    }
}

fn list(addresses: &[IpAddr]) -> String {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(", ")
}

impl From<Denial> for Decision {
    fn from(denial: Denial) -> Self {
        Self::Deny(denial)
    }
}

impl From<PendingReason> for Decision {
    fn from(pending: PendingReason) -> Self {
        Self::Leave(pending)
    }
}

#[cfg(test)]
mod tests;
