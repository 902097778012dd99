//! Who a certificate proves somebody to be.
//!
//! An agent's certificate names its node in the one DNS name, the node's addresses in the IP
//! names, and its enrolment in a URI. The CA wrote them; what the holder asked for never counts.

use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer as _,
};

use super::SubjectKey;
use crate::model::{AgentIdentity, IdentityKey, InvalidNodeName, NodeName};

/// Before an enrolment's id in the URI name of an agent's certificate.
pub(super) const ENROLMENT_URN: &str = "urn:culvert:enrolment:";

/// The certificate with which the caller of a request authenticated, verified against the CA.
/// Whoever ends the TLS connection puts it among the request's extensions.
#[derive(Clone, Debug)]
pub struct ClientCertificate(pub CertificateDer<'static>);

/// Why a certificate does not prove which agent holds it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnprovedIdentity {
    /// Not a certificate, or one with names that cannot be read.
    #[error("the client certificate cannot be read")]
    Unreadable,
    /// The holder's node is not named, or not the only one.
    #[error(
        "an agent's certificate names exactly one node as its DNS name, but this one names {0}; \
         enrol the agent anew to get one that does"
    )]
    NotOneNode(usize),
    /// The DNS name is no node's name.
    #[error("the client certificate's DNS name is unusable")]
    NodeName(#[from] InvalidNodeName),
}

/// The identity that this certificate proves. It must have been verified before.
pub fn agent_identity(leaf: &CertificateDer<'_>) -> Result<AgentIdentity, UnprovedIdentity> {
    let (_, certificate) =
        X509Certificate::from_der(leaf).map_err(|_| UnprovedIdentity::Unreadable)?;
    let names = alternative_names(&certificate)?;
    let nodes: Vec<&str> = names.iter().copied().filter_map(dns_name).collect();
    let [node] = nodes[..] else {
        return Err(UnprovedIdentity::NotOneNode(nodes.len()));
    };
    let key = names.iter().copied().find_map(enrolment).map_or_else(
        || {
            IdentityKey::from(
                SubjectKey::of(certificate.public_key().raw)
                    .to_string()
                    .as_str(),
            )
        },
        IdentityKey::from,
    );
    Ok(AgentIdentity {
        node: node.parse::<NodeName>()?,
        addresses: names.iter().copied().filter_map(address).collect(),
        key,
    })
}

/// The key that a certificate is for; `None` where the certificate cannot be read.
pub fn certificate_key(certificate: &CertificateDer<'_>) -> Option<SubjectKey> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(SubjectKey::of(certificate.public_key().raw))
}

fn alternative_names<'a>(
    certificate: &'a X509Certificate<'_>,
) -> Result<Vec<&'a GeneralName<'a>>, UnprovedIdentity> {
    let mut names = Vec::new();
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(san) => names.extend(&san.general_names),
            ParsedExtension::ParseError { .. } => return Err(UnprovedIdentity::Unreadable),
            _ => {}
        }
    }
    Ok(names)
}

fn dns_name<'a>(name: &'a GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::DNSName(name) => Some(name),
        _ => None,
    }
}

fn enrolment<'a>(name: &'a GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::URI(uri) => uri.strip_prefix(ENROLMENT_URN).filter(|id| !id.is_empty()),
        _ => None,
    }
}

fn address(name: &GeneralName<'_>) -> Option<IpAddr> {
    let GeneralName::IPAddress(octets) = name else {
        return None;
    };
    <[u8; 4]>::try_from(*octets)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from))
        .ok()
}

#[cfg(test)]
mod tests;
