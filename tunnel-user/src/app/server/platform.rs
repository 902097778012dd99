//! What stands behind a server: who says which nodes exist, and who certifies it.
//!
//! ```text
//!  standalone   its own CA, registered nodes in files    }
//!  Kubernetes   the cluster's CA, Node objects           } --> Platform --> the same server
//! ```

mod authority;
mod kubernetes;
mod standalone;

use std::sync::Arc;

use futures_util::future::{BoxFuture, Shared};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    frontend::{http::TargetTls, https::ClientTls},
    kubernetes::ServiceReaders,
    model::{AddressRanges, NodeName, Reviews, SnapshotReader},
    observability::{
        metrics::{ReadCluster, ServerMetrics},
        readiness::Readiness,
    },
    pki::{AgentProof, Validity},
    redirect::addresses::AddressWatch,
    settings::ServerArgs,
    tunnel::{
        RelayServer,
        server::{Sessions, UnaryService},
    },
};

/// Hears of each client that asked for a node without a session.
pub(super) type OnNoSession = Arc<dyn Fn(&NodeName) + Send + Sync>;

/// Resolves once something has come about, and at once from then on.
pub(super) type Moment = Shared<BoxFuture<'static, ()>>;

/// What a server needs of the outside world, and the tasks that keep it true.
pub(super) struct Platform {
    /// Which nodes exist.
    pub(super) snapshots: SnapshotReader,
    /// Where clients come from that frontends may take for the cluster's own.
    pub(super) cluster_clients: watch::Receiver<Arc<AddressRanges>>,
    /// Which Services may lead to them, where these are to be caught.
    pub(super) services: Option<ServiceReaders>,
    /// Resolves once that is known; the snapshot is empty until then.
    pub(super) known: Moment,
    /// Resolves once there is a certificate: without one no agent comes.
    pub(super) certified: Moment,
    /// The identity of the agent port.
    pub(super) tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    /// What proves this server to others.
    pub(super) certificates: Vec<HeldCertificate>,
    /// The life of the CA, where the server keeps it.
    pub(super) authority: Option<Validity>,
    /// How many servers there are.
    pub(super) server_count: watch::Receiver<u32>,
    /// How connections reach nodes whose session another server has, where there can be others.
    pub(super) relay: Option<RelayAccess>,
    /// What it takes to end the TLS of clients, where that is to be.
    pub(super) termination: Option<TerminationAccess>,
    /// Which certificates prove an agent.
    pub(super) proof: AgentProof,
    /// Enrolment and renewal, where the server itself certifies agents.
    pub(super) unary: UnaryService,
    pub(super) on_no_session: OnNoSession,
    /// How it stands with the cluster, where there is one.
    pub(super) cluster: Option<ReadCluster>,
    /// What has to run, by name.
    pub(super) tasks: Vec<(&'static str, BoxFuture<'static, ()>)>,
}

/// A certificate that is kept and renewed.
#[derive(Clone)]
pub(super) struct HeldCertificate {
    pub(super) name: &'static str,
    /// Whom it names.
    pub(super) subject: String,
    /// `None` until there is one.
    pub(super) validity: watch::Receiver<Option<Validity>>,
}

/// The other servers, and what proves this one to them.
pub(super) struct RelayAccess {
    pub(super) servers: watch::Receiver<Vec<RelayServer>>,
    /// `None` until there is a certificate.
    pub(super) tls: watch::Receiver<Option<Arc<rustls::ClientConfig>>>,
}

/// Who the clients are whose TLS ends here, and what proves this server to them and to kubelets.
#[derive(Clone)]
pub(super) struct TerminationAccess {
    pub(super) tls: watch::Receiver<ClientTls>,
    pub(super) is_own_name: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    pub(super) reviews: Arc<dyn Reviews>,
    pub(super) targets: TargetTls,
}

/// What a platform is made with.
pub(super) struct PlatformContext<'a> {
    pub(super) args: &'a ServerArgs,
    pub(super) server_id: &'a str,
    /// Whether this server takes agents, or another one during a takeover.
    pub(super) in_charge: watch::Receiver<bool>,
    pub(super) addresses: &'a AddressWatch,
    pub(super) sessions: &'a Sessions,
    pub(super) readiness: &'a Readiness,
    pub(super) metrics: &'a ServerMetrics,
    /// This server takes no more clients.
    pub(super) leaving: &'a CancellationToken,
    /// Ends the platform's tasks.
    pub(super) end: &'a CancellationToken,
}

impl Platform {
    /// Prepares what the settings ask for.
    pub(super) async fn new(context: PlatformContext<'_>) -> anyhow::Result<Self> {
        if context.args.kubernetes.cluster.kubernetes {
            kubernetes::platform(context).await
        } else {
            standalone::platform(&context).await
        }
    }
}
