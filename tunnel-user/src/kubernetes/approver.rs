//! Approves the certificate requests of servers and agents, while this server leads.
//!
//! ```text
//!  requests --watch--> CsrRequest --> Queue --> decide <-- nodes, names
//!                     (ours?)               |--> approved, denied: written back
//!                                           \--> left: looked at again
//! ```
//! Requests that claim neither subject are another approver's business and never touched.

mod csr_request;
mod decision;
mod queue;
mod term;
mod writing;

use std::time::Duration;

use kube::Client;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::{
    csr_request::{ALL_KINDS, Kinds, WITHOUT_PROXIES},
    term::LeaderTerm,
};
use super::{CertificateNames, ObjectName};
use crate::model::SnapshotReader;

/// What the approver needs.
pub struct ApproverOptions {
    /// Reaches the API server.
    pub client: Client,
    /// The nodes that may have agents, with their addresses.
    pub snapshots: SnapshotReader,
    /// The names that a server's certificate may carry; `None` while they are not known.
    pub names: watch::Receiver<Option<CertificateNames>>,
    /// The service account of the agents.
    pub agents: ObjectName,
    /// The service account of servers that only relay.
    pub relays: ObjectName,
    /// Whether servers may have certificates for kubelets.
    pub for_kubelets: bool,
    /// The longest life that an agent's certificate may be asked for.
    pub longest_life: Duration,
    /// Whether this server leads.
    pub leading: watch::Receiver<bool>,
    /// What to count.
    pub counts: ApprovalCounts,
}

/// Certificate requests decided by this server. Clones count into the same numbers.
#[derive(Clone, Debug, Default)]
pub struct ApprovalCounts {
    /// Approved since the start.
    pub approved: Counter,
    /// Denied since the start.
    pub denied: Counter,
    /// Of servers and agents, but left undecided at present.
    pub pending: Gauge,
}

/// Approves and denies while it leads.
pub struct Approver(ApproverOptions);

impl Approver {
    /// An approver; nothing is asked of the API server yet.
    pub fn new(options: ApproverOptions) -> Self {
        Self(options)
    }

    fn kinds(&self) -> Kinds {
        if self.0.for_kubelets {
            ALL_KINDS
        } else {
            WITHOUT_PROXIES
        }
    }

    /// Decides until the shutdown, in every term in which this server leads.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = self.serve_terms() => shutdown.cancelled().await,
            () = shutdown.cancelled() => {}
        }
    }

    /// Ends when nobody can become the leader any more.
    async fn serve_terms(&self) {
        let mut leading = self.0.leading.clone();
        while leading.wait_for(|leads| *leads).await.is_ok() {
            info!("approving certificate requests");
            tokio::select! {
                () = LeaderTerm::new(self).run() => {}
                lost = leading.wait_for(|leads| !leads) => if lost.is_err() { return },
            }
            info!("leaving certificate requests to another server");
            self.0.counts.pending(0);
        }
    }
}

impl ApprovalCounts {
    fn pending(&self, count: usize) {
        self.pending.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
