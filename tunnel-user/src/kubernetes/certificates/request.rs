//! Getting a certificate signed: a `CertificateSigningRequest`, and the wait for its end.
//!
//! ```text
//!  created --> pending --> approved --> issued
//!                  \--> denied       \--> failed
//! ```
//! The request's name is a hash of its key and content. So asking again, after a lost answer or a
//! restart, finds the request that is under way instead of making another.
//!
//! It is asked for by name, again and again, which takes no more than `create` and `get`: whoever may
//! list requests, or watch them, sees those of everybody.
//! <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/>

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::PostParams};
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _, SanType};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::{kind::CertificateKind, progress::Progress};
use crate::{
    backoff::Backoff,
    certificates::{CertificateNames, Trouble},
    kubernetes::api_error::{describe, is_status},
};

/// The longest that a single answer of the API server may take.
const ANSWER_TIME: Duration = Duration::from_secs(15);
/// The longest pause between two looks at a pending request: ten thousand agents may wait for hours
/// where nobody approves.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// When a request that is still pending is worth a word, and how often.
const PENDING_TIME: Duration = Duration::from_secs(10);

/// What is asked for.
pub(in crate::kubernetes) struct Request<'a> {
    pub(in crate::kubernetes) kind: &'static CertificateKind,
    pub(in crate::kubernetes) names: &'a CertificateNames,
    pub(in crate::kubernetes) key: &'a KeyPair,
    /// The life to ask for; the signer may give less. `None` leaves it to the signer.
    pub(in crate::kubernetes) life: Option<Duration>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(in crate::kubernetes) enum RequestError {
    #[error("cannot ask the API server for a certificate: {0}")]
    Api(String),
    #[error("the API server did not answer within {ANSWER_TIME:?}")]
    NoAnswer,
    #[error("the request {name} was denied: {reason}")]
    Denied { name: String, reason: String },
    #[error("the signer could not sign the request {name}: {reason}")]
    Failed { name: String, reason: String },
    #[error("the request {0} was deleted before a certificate was issued")]
    Gone(String),
    #[error("somebody else made a request named {0}")]
    Foreign(String),
    #[error("what the request {0} got is not a certificate in PEM")]
    NotPem(String),
    #[error("cannot make a certificate request")]
    Make(#[from] rcgen::Error),
}

impl RequestError {
    /// Whether it will not be signed. The next request needs another key then, for this one's name
    /// is taken.
    pub(in crate::kubernetes) fn is_refusal(&self) -> bool {
        match self {
            Self::Denied { .. } | Self::Failed { .. } | Self::Foreign(_) | Self::NotPem(_) => true,
            Self::Api(_) | Self::NoAnswer | Self::Gone(_) | Self::Make(_) => false,
        }
    }
}

/// Gets a certificate, the leaf first. Waits while the request is pending; `trouble` hears why it
/// takes long. Whoever stops waiting can ask again with the same request.
pub(in crate::kubernetes) async fn obtain(
    client: &Client,
    request: &Request<'_>,
    trouble: Trouble<'_>,
) -> Result<Vec<CertificateDer<'static>>, RequestError> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let name = request.name();
    create_or_find(&api, request, &name).await?;
    let mut pauses = Backoff::up_to(LONGEST_PAUSE);
    let mut complaint = Instant::now() + PENDING_TIME;
    let mut progress = Progress::Pending;
    loop {
        tokio::select! {
            () = sleep(pauses.after(Duration::ZERO)) => match look(&api, &name).await {
                Ok(seen) => progress = seen,
                Err(error @ RequestError::Gone(_)) => return Err(error),
                Err(error) => trouble(format!("cannot follow the certificate request: {error}")),
            },
            () = sleep_until(complaint) => {
                complaint += 6 * PENDING_TIME;
                let waits = progress.waits_for(&name);
                warn!(request = name, "{waits}");
                trouble(waits);
            }
        }
        match progress {
            Progress::Pending | Progress::Approved => {}
            Progress::Issued(pem) => return chain_of(&pem).ok_or(RequestError::NotPem(name)),
            Progress::Denied(reason) => return Err(RequestError::Denied { name, reason }),
            Progress::Failed(reason) => return Err(RequestError::Failed { name, reason }),
        }
    }
}

async fn look(api: &Api<CertificateSigningRequest>, name: &str) -> Result<Progress, RequestError> {
    match answer(api.get(name)).await? {
        Ok(csr) => Ok(Progress::of(&csr)),
        Err(error) if is_status(&error, 404) => Err(RequestError::Gone(name.to_owned())),
        Err(error) => Err(RequestError::Api(describe(&error))),
    }
}

async fn create_or_find(
    api: &Api<CertificateSigningRequest>,
    request: &Request<'_>,
    name: &str,
) -> Result<(), RequestError> {
    let csr = request.to_csr(name.to_owned())?;
    match answer(api.create(&PostParams::default(), &csr)).await? {
        Ok(_) => {
            info!(request = name, names = %request.names, "asked for a certificate");
            return Ok(());
        }
        Err(error) if is_status(&error, 409) => {}
        Err(error) => return Err(RequestError::Api(describe(&error))),
    }
    let found = answer(api.get(name)).await?;
    let found = found.map_err(|error| RequestError::Api(describe(&error)))?;
    let (found, own) = (found.spec, csr.spec);
    if found.signer_name != own.signer_name || found.usages != own.usages {
        return Err(RequestError::Foreign(name.to_owned()));
    }
    info!(
        request = name,
        "going on with the certificate request that is there"
    );
    Ok(())
}

async fn answer<T>(
    call: impl Future<Output = kube::Result<T>>,
) -> Result<kube::Result<T>, RequestError> {
    timeout(ANSWER_TIME, call)
        .await
        .map_err(|_| RequestError::NoAnswer)
}

impl Request<'_> {
    /// The same for the same key and content, and different for any other.
    pub(in crate::kubernetes) fn name(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.key.subject_public_key_info());
        hash.update(format!("{:?} {:?} {:?}", self.kind, self.names, self.life));
        let hash = hex::encode(&hash.finalize()[..8]);
        format!("culvert-{}-{hash}", self.kind.role)
    }

    pub(in crate::kubernetes) fn to_csr(
        &self,
        name: String,
    ) -> Result<CertificateSigningRequest, rcgen::Error> {
        let labels = [
            ("app.kubernetes.io/name", "culvert"),
            ("app.kubernetes.io/component", self.kind.role),
        ];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Ok(CertificateSigningRequest {
            metadata: ObjectMeta {
                name: Some(name),
                labels: Some(BTreeMap::from(labels)),
                ..ObjectMeta::default()
            },
            spec: CertificateSigningRequestSpec {
                request: ByteString(self.to_pem()?.into_bytes()),
                signer_name: self.kind.signer.to_owned(),
                usages: Some(self.kind.usages.map(str::to_owned).to_vec()),
                expiration_seconds: self
                    .life
                    .map(|life| i32::try_from(life.as_secs()).unwrap_or(i32::MAX)),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        })
    }

    fn to_pem(&self) -> Result<String, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = self.kind.subject.to_name();
        for name in &self.names.dns {
            let name = name.as_str().try_into()?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        let ips = self.names.ips.iter().copied();
        params.subject_alt_names.extend(ips.map(SanType::IpAddress));
        params.serialize_request(self.key)?.pem()
    }
}

fn chain_of(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .ok()?;
    (!chain.is_empty()).then_some(chain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kubernetes::{
            certificates::kind::{AGENT, SERVER},
            testing::names,
        },
        pki::new_key,
    };

    #[test]
    fn a_request_is_found_again_by_its_key_and_content_alone() {
        let [key, other_key] = [new_key().unwrap(), new_key().unwrap()];
        let (edge, other_edge) = (
            names(&["edge-1"], &["10.0.0.1"]),
            names(&["edge-1"], &["10.0.0.2"]),
        );
        let name = |kind, names, key, life| {
            Request {
                kind,
                names,
                key,
                life,
            }
            .name()
        };
        let first = name(&AGENT, &edge, &key, None);
        assert!(first.starts_with("culvert-agent-"), "{first}");
        assert_eq!(first, name(&AGENT, &edge, &key, None));
        for other in [
            name(&AGENT, &edge, &other_key, None),
            name(&AGENT, &other_edge, &key, None),
            name(&SERVER, &edge, &key, None),
            name(&AGENT, &edge, &key, Some(PENDING_TIME)),
        ] {
            assert_ne!(first, other);
        }
    }
}
