//! What stands behind a server: who says which nodes exist, and who certifies it.
//!
//! ```text
//!  standalone   its own CA, registered nodes in files
//!  Kubernetes   the cluster's CA, Node objects           } --> Backing --> the same server
//! ```

mod standalone;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    model::SnapshotReader,
    pki::{AgentProof, Validity},
    redirect::addresses::AddressWatch,
    settings::ServerArgs,
    tunnel::server::UnaryService,
};

/// What a server needs of the outside world, and the tasks that keep it true.
pub(super) struct Backing {
    /// Which nodes exist.
    pub(super) snapshots: SnapshotReader,
    /// The identity of the agent port.
    pub(super) tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    /// Whom the server's certificate names.
    pub(super) subject: String,
    /// The certificate's life.
    pub(super) validities: watch::Receiver<Validity>,
    /// How many servers there are.
    pub(super) server_count: watch::Receiver<u32>,
    /// Which certificates prove an agent.
    pub(super) proof: AgentProof,
    /// Enrolment and renewal, where the server itself certifies agents.
    pub(super) unary: UnaryService,
    /// The life of the CA, where the server keeps it.
    pub(super) authority: Option<Validity>,
    /// What has to run, by name.
    pub(super) tasks: Vec<(&'static str, BoxFuture<'static, ()>)>,
}

impl Backing {
    /// Prepares it; its tasks will end with `end`.
    pub(super) fn new(
        args: &ServerArgs,
        addresses: &AddressWatch,
        end: &CancellationToken,
    ) -> anyhow::Result<Self> {
        standalone::backing(args, addresses.subscribe(), end)
    }
}
