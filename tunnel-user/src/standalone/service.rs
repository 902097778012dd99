//! The enrolment service on the agent port.

use std::{net::IpAddr, sync::Arc, time::Duration};

use time::OffsetDateTime;
use tokio::{sync::Semaphore, time::timeout};
use tonic::{Request, Response, Status};
use tracing::{error, field::display, info, warn};

use super::{
    Admission, Enrolling, Issued, Refused, State, chain,
    proto::{Certificate, EnrolRequest, RenewRequest, enrolment_server::Enrolment},
};
use crate::{
    model::{
        Admits, AgentIdentity, InvalidNodeName, NodeName, NodeNetworks, PeerAddr, SnapshotReader,
        printable,
    },
    pki::{AgentProof, ClientCertificate, OnRenewal, Validity, agent_identity, certificate_pem},
};

/// Says whether an address is one of the server's own.
pub type IsServerAddress = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// How many enrolments, and how many renewals, are decided at the same time. Each takes a thread;
/// strangers must not take those that renewals need.
const DECISIONS: usize = 8;

/// The most addresses that an agent may propose for its node.
const MOST_ADDRESSES: usize = 1024;

/// The longest wait for the source to publish a registration.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(2);

/// Serves [`Enrolment`]. Whoever ends TLS puts the caller's address ([`PeerAddr`]) and verified
/// certificate ([`ClientCertificate`]), if there is one, into the request's extensions.
#[derive(Clone)]
pub struct EnrolmentService {
    state: Arc<State>,
    certificate_ttl: Duration,
    node_networks: NodeNetworks,
    is_server_address: IsServerAddress,
    snapshots: Option<SnapshotReader>,
    enrolments: Arc<Semaphore>,
    renewals: Arc<Semaphore>,
}

/// Who asks, for the log.
struct Caller {
    peer: Option<PeerAddr>,
    /// Proved by its certificate.
    node: Option<NodeName>,
    /// Said by whoever has no certificate.
    asked_node: Option<NodeName>,
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
            node_networks: NodeNetworks::default(),
            is_server_address,
            snapshots: None,
            enrolments: Arc::new(Semaphore::new(DECISIONS)),
            renewals: Arc::new(Semaphore::new(DECISIONS)),
        }
    }

    /// A node that enrols gets addresses of these networks only.
    #[must_use]
    pub fn in_networks(mut self, node_networks: NodeNetworks) -> Self {
        self.node_networks = node_networks;
        self
    }

    /// An agent gets its first certificate once these snapshots show its node: it may connect at
    /// once then.
    #[must_use]
    pub fn published_by(mut self, snapshots: SnapshotReader) -> Self {
        self.snapshots = Some(snapshots);
        self
    }

    async fn until_published(&self, identity: &AgentIdentity) {
        let Some(mut snapshots) = self.snapshots.clone() else {
            return;
        };
        let admitted = Admits::Enrolment(identity.key.clone());
        let published = snapshots.wait_for(|snapshot| {
            let node = snapshot.nodes().get(&identity.node);
            node.is_some_and(|node| node.admits.as_ref() == Some(&admitted))
        });
        if timeout(PUBLISHED_WITHIN, published).await.is_err() {
            warn!(node = %identity.node, "the node is registered, but not published yet");
        }
    }

    /// Decides on a thread that may wait for the disk and for the lock.
    async fn decide(
        &self,
        caller: &Caller,
        slots: &Semaphore,
        decision: impl FnOnce(&Admission<'_>) -> Result<Issued, Refused> + Send + 'static,
    ) -> Result<Issued, Status> {
        let stopping = || Status::unavailable("the server is stopping");
        let _slot = slots.acquire().await.map_err(|_| stopping())?;
        let service = self.clone();
        let decided = tokio::task::spawn_blocking(move || {
            decision(&Admission {
                state: &service.state,
                certificate_ttl: service.certificate_ttl,
                node_networks: &service.node_networks,
                is_server_address: &*service.is_server_address,
            })
        });
        decided
            .await
            .map_err(|_| stopping())?
            .map_err(|refused| status(&refused, caller))
    }

    fn answer(&self, issued: &Issued) -> Response<Certificate> {
        Response::new(Certificate {
            certificate_pem: certificate_pem(&issued.certificate),
            ca_pem: self.state.ca().certificate_pem().to_owned(),
            node: issued.identity.node.to_string(),
            addresses: texts(&issued.identity.addresses),
        })
    }
}

#[tonic::async_trait]
impl Enrolment for EnrolmentService {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<Certificate>, Status> {
        let peer = request.extensions().get::<PeerAddr>().copied();
        let EnrolRequest {
            token,
            csr_der,
            addresses,
            node,
        } = request.into_inner();
        let node: NodeName = node
            .parse()
            .map_err(|error: InvalidNodeName| Status::invalid_argument(error.to_string()))?;
        if addresses.len() > MOST_ADDRESSES {
            return Err(Status::invalid_argument(format!(
                "the request proposes {} addresses, at most {MOST_ADDRESSES} can be a node's",
                addresses.len()
            )));
        }
        let proposed = addresses
            .iter()
            .map(|text| text.parse::<IpAddr>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| Status::invalid_argument("an address of the request is not one"))?;
        let now = OffsetDateTime::now_utc();
        let caller = Caller {
            peer,
            node: None,
            asked_node: Some(node.clone()),
        };
        let decided = self.decide(&caller, &self.enrolments, move |admission| {
            let asked = Enrolling {
                token: &token,
                node: &node,
                csr_der: &csr_der,
                proposed: &proposed,
            };
            admission.enrol(&asked, now)
        });
        let issued = decided.await?;
        self.until_published(&issued.identity).await;
        Ok(self.answer(&issued))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Certificate>, Status> {
        let certificate = request.extensions().get::<ClientCertificate>().cloned();
        let on_renewal = request.extensions().get::<OnRenewal>().cloned();
        let shown = certificate.as_ref();
        let caller = Caller {
            peer: request.extensions().get::<PeerAddr>().copied(),
            node: shown
                .and_then(|shown| agent_identity(&shown.0, AgentProof::Enrolment).ok())
                .map(|identity| identity.node),
            asked_node: None,
        };
        let csr_der = request.into_inner().csr_der;
        let now = OffsetDateTime::now_utc();
        let decided = self.decide(&caller, &self.renewals, move |admission| {
            admission.renew(certificate.as_ref().map(|shown| &shown.0), &csr_der, now)
        });
        let issued = decided.await?;
        if let (Some(told), Some(validity)) = (on_renewal, Validity::of(&issued.certificate)) {
            (told.0)(&issued.identity, validity);
        }
        Ok(self.answer(&issued))
    }
}

fn status(refused: &Refused, caller: &Caller) -> Status {
    let peer = caller.peer.as_ref().map(display);
    let node = caller.node.as_ref().map(display);
    let asked_node = caller.asked_node.as_ref().map(display);
    if matches!(refused, Refused::State(_) | Refused::Issue(_)) {
        error!(
            peer,
            node,
            asked_node,
            error = chain(refused),
            "cannot decide about a certificate"
        );
        return Status::internal(
            "the server cannot issue certificates at present; its log says why",
        );
    }
    let reason = printable(&chain(refused));
    info!(peer, node, asked_node, reason, "refused a certificate");
    if matches!(refused, Refused::Request(_)) {
        return Status::invalid_argument(chain(refused));
    }
    Status::permission_denied(refused.to_string())
}

fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}
