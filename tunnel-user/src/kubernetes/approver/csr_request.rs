//! What a certificate request asks for, if it asks for one of ours.

use std::{net::IpAddr, time::Duration};

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
    kubernetes::certificates::kind::{AGENT, CertificateKind, PROXY, RELAY, SERVER},
    pki::AlternativeNames,
};

/// The one block that a request consists of.
const PEM_TAG: &str = "CERTIFICATE REQUEST";

/// The longest request, as PEM, and the most names of each kind: an agent's has a name and its node's
/// addresses, a server's a few names for each server.
pub(super) const LONGEST_REQUEST: usize = 16 * 1024;
pub(super) const MOST_NAMES: usize = 64;
/// What a usage, a user or a node is called at most. What is longer is none that we look for.
const LONGEST_NAME: usize = 512;
/// The usages that are kept: more than any right request has.
const MOST_USAGES: usize = 8;
/// The one group that matters.
const NODES: &str = "system:nodes";

/// What is approved or denied; requests of other kinds are other approvers' business.
pub(super) type Kinds = &'static [&'static CertificateKind];

/// Where servers ask kubelets nothing themselves.
pub(super) const WITHOUT_PROXIES: Kinds = &[&SERVER, &AGENT, &RELAY];
/// Where they do (`--https-terminate`).
pub(super) const ALL_KINDS: Kinds = &[&SERVER, &AGENT, &RELAY, &PROXY];

/// A request that claims the subject of a server or an agent.
#[derive(Clone, Debug)]
pub(super) struct CsrRequest {
    pub(super) kind: &'static CertificateKind,
    /// Whether the subject is that and nothing more.
    pub(super) subject_is_exact: bool,
    /// In order, each once.
    pub(super) usages: Vec<String>,
    /// `None` where the request asks for anything that is not a name.
    pub(super) names: Option<ClaimedNames>,
    /// The life asked for; `None` leaves it to the signer.
    pub(super) life: Option<Duration>,
    pub(super) requester: Requester,
    /// Whether it is longer, or names more, than any that is right. Its names are not kept then.
    pub(super) is_too_large: bool,
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
pub(super) struct RequesterKey {
    pub(super) username: String,
    pub(super) pod_node: Vec<String>,
}

/// Where the API server tells the node of a service account's token (1.30 and newer; see
/// <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#additional-metadata-in-pod-bound-tokens>).
const NODE_NAME_KEY: &str = "authentication.kubernetes.io/node-name";

impl CsrRequest {
    /// Reads a request of one of these kinds; `None` where it is of none, or cannot be read.
    pub(super) fn read(csr: &CertificateSigningRequest, ours: Kinds) -> Option<Self> {
        let spec = &csr.spec;
        let mut of_signer = ours
            .iter()
            .copied()
            .filter(|kind| kind.signer == spec.signer_name)
            .peekable();
        of_signer.peek()?;
        let der = only_block(&spec.request.0)?;
        let (rest, request) = X509CertificationRequest::from_der(&der).ok()?;
        let info = &request.certification_request_info;
        let kind = of_signer.find(|kind| kind.subject.is_claimed_by(&info.subject))?;
        if !rest.is_empty() {
            return None;
        }
        let mut usages = spec.usages.clone().unwrap_or_default();
        usages.sort();
        usages.dedup();
        usages.truncate(MOST_USAGES);
        usages.iter_mut().for_each(cut);
        let is_too_large = spec.request.0.len() > LONGEST_REQUEST;
        let names = (!is_too_large).then(|| ClaimedNames::read(info)).flatten();
        let has_too_many = |names: &ClaimedNames| names.dns.len().max(names.ips.len()) > MOST_NAMES;
        let is_too_large = is_too_large || names.as_ref().is_some_and(has_too_many);
        Some(Self {
            kind,
            subject_is_exact: kind.subject.is_exactly(&info.subject),
            usages,
            names: names.filter(|_| !is_too_large),
            life: spec
                .expiration_seconds
                .map(|seconds| Duration::from_secs(seconds.max(0).unsigned_abs().into())),
            requester: Requester::read(spec),
            is_too_large,
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
    pub(super) fn asker(&self) -> RequesterKey {
        RequesterKey {
            username: self.username.clone(),
            pod_node: self.pod_node.clone(),
        }
    }

    fn read(spec: &CertificateSigningRequestSpec) -> Self {
        let extra = spec.extra.as_ref();
        let pod_node = extra.and_then(|extra| extra.get(NODE_NAME_KEY));
        let mut username = spec.username.clone().unwrap_or_default();
        cut(&mut username);
        let groups = spec.groups.iter().flatten();
        // More than one is as wrong as three.
        let pod_node = pod_node.into_iter().flatten().take(2);
        let mut pod_node: Vec<_> = pod_node.cloned().collect();
        pod_node.iter_mut().for_each(cut);
        Self {
            username,
            groups: groups.filter(|group| *group == NODES).cloned().collect(),
            pod_node,
        }
    }
}

fn cut(name: &mut String) {
    name.truncate(name.floor_char_boundary(LONGEST_NAME));
    name.shrink_to_fit();
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
