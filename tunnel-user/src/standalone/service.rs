//! The enrolment service on the agent port.

use std::{net::IpAddr, sync::Arc, time::Duration};

use time::OffsetDateTime;
use tonic::{Request, Response, Status};
use tracing::{error, info};

use super::{
    Admission, Enrolling, Issued, Refused, State, chain,
    proto::{Certificate, EnrolRequest, RenewRequest, enrolment_server::Enrolment},
};
use crate::{
    model::InvalidNodeName,
    pki::{AgentCsr, ClientCertificate, certificate_pem},
};

/// Says whether an address is one of the server's own.
pub type IsServerAddress = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Serves [`Enrolment`]. Whoever ends TLS puts the caller's verified certificate, if there is one,
/// into the request's extensions as a [`ClientCertificate`].
#[derive(Clone)]
pub struct EnrolmentService {
    state: Arc<State>,
    certificate_ttl: Duration,
    is_server_address: IsServerAddress,
}

impl EnrolmentService {
    /// A service that issues certificates which live for `certificate_ttl`.
    pub fn new(
        state: Arc<State>,
        certificate_ttl: Duration,
        is_server_address: IsServerAddress,
    ) -> Self {
        Self {
            state,
            certificate_ttl,
            is_server_address,
        }
    }

    /// Decides on a thread that may wait for the disk and for the lock.
    async fn decide(
        &self,
        decision: impl FnOnce(&Admission<'_>) -> Result<Issued, Refused> + Send + 'static,
    ) -> Result<Response<Certificate>, Status> {
        let service = self.clone();
        let decided = tokio::task::spawn_blocking(move || {
            decision(&Admission {
                state: &service.state,
                certificate_ttl: service.certificate_ttl,
                is_server_address: &*service.is_server_address,
            })
        });
        let issued = decided
            .await
            .map_err(|_| Status::unavailable("the server is stopping"))?
            .map_err(|refused| status(&refused))?;
        Ok(Response::new(Certificate {
            certificate_pem: certificate_pem(&issued.certificate),
            ca_pem: self.state.ca().certificate_pem().to_owned(),
            node: issued.identity.node.to_string(),
            addresses: texts(&issued.identity.addresses),
        }))
    }
}

#[tonic::async_trait]
impl Enrolment for EnrolmentService {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<Certificate>, Status> {
        let EnrolRequest {
            token,
            csr_der,
            addresses,
            node,
        } = request.into_inner();
        let node = node
            .parse()
            .map_err(|error: InvalidNodeName| Status::invalid_argument(error.to_string()))?;
        let csr = csr(&csr_der)?;
        let proposed = addresses
            .iter()
            .map(|text| text.parse::<IpAddr>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Status::invalid_argument("an address of the request is not one"))?;
        let now = OffsetDateTime::now_utc();
        self.decide(move |admission| {
            let asked = Enrolling {
                token: &token,
                node: &node,
                csr: &csr,
                proposed: &proposed,
            };
            admission.enrol(&asked, now)
        })
        .await
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Certificate>, Status> {
        let certificate = request.extensions().get::<ClientCertificate>().cloned();
        let csr = csr(&request.into_inner().csr_der)?;
        let now = OffsetDateTime::now_utc();
        self.decide(move |admission| {
            admission.renew(certificate.as_ref().map(|shown| &shown.0), &csr, now)
        })
        .await
    }
}

fn csr(der: &[u8]) -> Result<AgentCsr, Status> {
    AgentCsr::from_der(der).map_err(|invalid| Status::invalid_argument(chain(&invalid)))
}

fn status(refused: &Refused) -> Status {
    if matches!(refused, Refused::State(_) | Refused::Issue(_)) {
        error!(error = chain(refused), "cannot decide about a certificate");
        return Status::internal(
            "the server cannot issue certificates at present; its log says why",
        );
    }
    info!(reason = %refused, "refused a certificate");
    Status::permission_denied(refused.to_string())
}

fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}
