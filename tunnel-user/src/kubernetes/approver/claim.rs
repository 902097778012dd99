//! What a certificate request asks for, if it asks for one of ours.

use std::net::IpAddr;

use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
use x509_parser::{
    certification_request::{X509CertificationRequest, X509CertificationRequestInfo},
    cri_attributes::ParsedCriAttribute,
    extensions::{ParsedExtension, X509Extension},
    prelude::FromDer as _,
};

use crate::{
    kubernetes::certificates::kind::{AGENT, CertificateKind, SERVER},
    pki::AlternativeNames,
};

/// The one block that a request consists of.
const PEM_TAG: &str = "CERTIFICATE REQUEST";

/// A request that claims the subject of a server or an agent.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) kind: &'static CertificateKind,
    /// Whether the subject is that and nothing more.
    pub(super) subject_is_exact: bool,
    /// In order, each once.
    pub(super) usages: Vec<String>,
    /// `None` where the request asks for anything that is not a name.
    pub(super) names: Option<ClaimedNames>,
    pub(super) requester: Requester,
}

/// The names asked for, each as often as it stands there.
#[derive(Clone, Debug)]
pub(super) struct ClaimedNames {
    pub(super) dns: Vec<String>,
    pub(super) ips: Vec<IpAddr>,
    /// URIs, mail addresses, and whatever else there is.
    pub(super) others: usize,
}

/// Who asks: the API server wrote it into the request.
#[derive(Clone, Debug, Default)]
pub(super) struct Requester {
    pub(super) username: String,
    pub(super) groups: Vec<String>,
    /// The node of the pod that the requester's token is bound to.
    pub(super) pod_node: Vec<String>,
}

/// Whose requests wait in one line: one user, on one node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Asker {
    pub(super) username: String,
    pub(super) pod_node: Vec<String>,
}

/// Where the API server tells the node of a service account's token (1.30 and newer; see
/// <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#additional-metadata-in-pod-bound-tokens>).
const NODE_NAME_KEY: &str = "authentication.kubernetes.io/node-name";

impl Claim {
    /// Reads a request; `None` where it is none of our business, or cannot be read.
    pub(super) fn read(csr: &CertificateSigningRequest) -> Option<Self> {
        let spec = &csr.spec;
        let kind = [&SERVER, &AGENT]
            .into_iter()
            .find(|kind| kind.signer == spec.signer_name)?;
        let der = only_block(&spec.request.0)?;
        let (rest, request) = X509CertificationRequest::from_der(&der).ok()?;
        let info = &request.certification_request_info;
        if !rest.is_empty() || !kind.subject.is_claimed_by(&info.subject) {
            return None;
        }
        let mut usages = spec.usages.clone().unwrap_or_default();
        usages.sort();
        usages.dedup();
        Some(Self {
            kind,
            subject_is_exact: kind.subject.is_exactly(&info.subject),
            usages,
            names: ClaimedNames::read(info),
            requester: Requester::read(spec),
        })
    }
}

impl ClaimedNames {
    /// Names stand in one extension of one attribute; there must be no other extension or
    /// attribute, whatever the signer would make of it.
    fn read(info: &X509CertificationRequestInfo<'_>) -> Option<Self> {
        let extensions: &[X509Extension<'_>] = match info.attributes() {
            [] => &[],
            [attribute] => match attribute.parsed_attribute() {
                ParsedCriAttribute::ExtensionRequest(requested) => &requested.extensions,
                _ => return None,
            },
            _ => return None,
        };
        let is_names = |extension: &X509Extension<'_>| {
            matches!(
                extension.parsed_extension(),
                ParsedExtension::SubjectAlternativeName(_)
            )
        };
        if extensions.len() > 1 || !extensions.iter().all(is_names) {
            return None;
        }
        let names = AlternativeNames::of(extensions).ok()?;
        Some(Self {
            dns: names.dns.iter().map(ToString::to_string).collect(),
            ips: names.ips.iter().map(IpAddr::to_canonical).collect(),
            others: names.others + names.uris.len(),
        })
    }
}

impl Requester {
    pub(super) fn asker(&self) -> Asker {
        Asker {
            username: self.username.clone(),
            pod_node: self.pod_node.clone(),
        }
    }

    fn read(spec: &CertificateSigningRequestSpec) -> Self {
        let extra = spec.extra.as_ref();
        let pod_node = extra.and_then(|extra| extra.get(NODE_NAME_KEY));
        Self {
            username: spec.username.clone().unwrap_or_default(),
            groups: spec.groups.clone().unwrap_or_default(),
            pod_node: pod_node.cloned().unwrap_or_default(),
        }
    }
}

/// The content of the one PEM block that must be all there is: the signer reads the first block,
/// and nobody shall argue which that is.
fn only_block(text: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(text).ok()?.trim();
    let is_one = text.matches("-----BEGIN").count() == 1 && text.starts_with("-----BEGIN");
    let block = is_one.then(|| pem::parse(text).ok())??;
    let is_plain = block.tag() == PEM_TAG && block.headers().iter().next().is_none();
    is_plain.then(|| block.into_contents())
}
