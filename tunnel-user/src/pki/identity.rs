//! Who a certificate proves somebody to be.
//!
//! An agent's certificate names its node in the one DNS name and the node's addresses in the IP
//! names. Whoever issued it made sure that they are true; what the holder says never counts.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{
    Purpose, SubjectKey, Validity,
    subject::{AGENT_SUBJECT, AlternativeNames, RELAY_SUBJECT, UnreadableExtension},
    usage::{WrongUsage, check_usage},
};
use crate::model::{AgentIdentity, IdentityKey, InvalidNodeName, NodeName};

/// Before an enrolment's id in the URI name of an agent's certificate.
pub(super) const ENROLMENT_URN: &str = "urn:culvert:enrolment:";

/// The certificate with which the caller of a request authenticated, verified against the CA.
/// Whoever ends the TLS connection puts it among the request's extensions.
#[derive(Clone, Debug)]
pub struct ClientCertificate(pub CertificateDer<'static>);

/// Told of a certificate that the caller of a request has got in exchange for its older one. Whoever
/// ends the TLS connection puts it among the request's extensions.
#[derive(Clone)]
pub struct OnRenewal(pub Arc<HearRenewal>);

/// Hears of the life of an agent's newer certificate.
type HearRenewal = dyn Fn(&AgentIdentity, Validity) + Send + Sync;

/// Why a certificate does not prove which agent holds it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnprovedIdentity {
    /// Not a certificate, or one with names that cannot be read.
    #[error("the client certificate cannot be read")]
    Unreadable,
    /// It is no client's.
    #[error(transparent)]
    Usage(#[from] WrongUsage),
    /// A certificate of the cluster's CA that is somebody else's.
    #[error(
        "the client certificate is of {0:?}, not an agent's: agents are known by CN={cn}, O={o}",
        cn = AGENT_SUBJECT.common_name, o = AGENT_SUBJECT.organization
    )]
    NotAnAgent(String),
    /// The holder's node is not named, or not the only one.
    #[error(
        "an agent's certificate names exactly one node as its DNS name, but this one names {0}; \
         get the agent a new one"
    )]
    NotOneNode(usize),
    /// The DNS name is no node's name.
    #[error("the client certificate's DNS name is unusable")]
    NodeName(#[from] InvalidNodeName),
}

/// Which of the certificates that a server's CA has issued prove an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentProof {
    /// Of a standalone server's own CA: it issues client certificates to agents only, and names
    /// the enrolment in a URI.
    Enrolment,
    /// Of a Kubernetes cluster's CA, which also issues those of kubelets and administrators: the
    /// ones with the agents' subject. The approver lets only the node itself have its name, so the
    /// node is the identity.
    ClusterSubject,
}

/// The identity that this certificate proves. It must have been verified before.
pub fn agent_identity(
    leaf: &CertificateDer<'_>,
    proof: AgentProof,
) -> Result<AgentIdentity, UnprovedIdentity> {
    let (_, certificate) =
        X509Certificate::from_der(leaf).map_err(|_| UnprovedIdentity::Unreadable)?;
    check_usage(&certificate, Purpose::Client)?;
    let subject = certificate.subject();
    if proof == AgentProof::ClusterSubject && !AGENT_SUBJECT.is_exactly(subject) {
        return Err(UnprovedIdentity::NotAnAgent(subject.to_string()));
    }
    let names = AlternativeNames::of(certificate.extensions())?;
    let node = one_node(&names)?;
    let key = match proof {
        AgentProof::Enrolment => enrolment(&names)
            .unwrap_or_else(|| SubjectKey::of(certificate.public_key().raw).to_string()),
        AgentProof::ClusterSubject => node.to_string(),
    };
    Ok(AgentIdentity {
        node,
        addresses: names.ips,
        key: IdentityKey::from(key.as_str()),
    })
}

/// The machine whose server this certificate lets relay; `None` if it is no such certificate. It must have been
/// verified before.
pub fn relay_machine(leaf: &CertificateDer<'_>) -> Result<Option<NodeName>, UnprovedIdentity> {
    let (_, certificate) =
        X509Certificate::from_der(leaf).map_err(|_| UnprovedIdentity::Unreadable)?;
    if !RELAY_SUBJECT.is_exactly(certificate.subject()) {
        return Ok(None);
    }
    check_usage(&certificate, Purpose::Client)?;
    one_node(&AlternativeNames::of(certificate.extensions())?).map(Some)
}

fn one_node(names: &AlternativeNames<'_>) -> Result<NodeName, UnprovedIdentity> {
    let [node] = names.dns[..] else {
        return Err(UnprovedIdentity::NotOneNode(names.dns.len()));
    };
    Ok(node.parse()?)
}

fn enrolment(names: &AlternativeNames<'_>) -> Option<String> {
    let ids = names
        .uris
        .iter()
        .filter_map(|uri| uri.strip_prefix(ENROLMENT_URN));
    ids.filter(|id| !id.is_empty()).map(str::to_owned).next()
}

impl From<UnreadableExtension> for UnprovedIdentity {
    fn from(_: UnreadableExtension) -> Self {
        Self::Unreadable
    }
}

#[cfg(test)]
mod tests;
