//! What stands behind an agent: who certifies it, and who says where servers are.

mod kubernetes;
mod standalone;

use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    app::tasks::Tasks,
    model::{AgentIdentity, ServerAddr},
    observability::readiness::{Condition, Readiness},
    pki::Validity,
    settings::AgentArgs,
    tunnel::agent::{Listed, LocalAddresses},
};

/// What an agent needs of the outside world; tasks keep it true.
pub(super) struct Platform {
    /// What the certificate proves.
    pub(super) identity: watch::Receiver<AgentIdentity>,
    /// Presents it, and verifies servers.
    pub(super) tls: watch::Receiver<Arc<ClientConfig>>,
    /// Told of a certificate that servers do not take any more.
    pub(super) refused_tx: watch::Sender<Option<Arc<ClientConfig>>>,
    pub(super) validities: watch::Receiver<Validity>,
    /// The life of the servers' CA, where it is theirs alone.
    pub(super) authority: Option<Validity>,
    /// Where servers listen.
    pub(super) servers: watch::Receiver<Vec<ServerAddr>>,
    /// The ports of this node that a cluster lists.
    pub(super) listed_ports: Option<Listed>,
    /// The name that every server has; `None` verifies the address dialled.
    pub(super) server_name: Option<ServerName<'static>>,
}

/// What a platform is made with.
pub(super) struct PlatformContext<'a> {
    pub(super) args: &'a AgentArgs,
    pub(super) local: Option<&'a LocalAddresses>,
    pub(super) readiness: &'a Readiness,
    /// Hears why it takes long until there is an identity.
    pub(super) identity: &'a Condition,
    pub(super) tasks: &'a mut Tasks,
    /// Gives it up.
    pub(super) stop: &'a CancellationToken,
    /// Ends the tasks.
    pub(super) end: &'a CancellationToken,
}

impl Platform {
    /// Gets an identity, for as long as that takes.
    pub(super) async fn establish(context: PlatformContext<'_>) -> anyhow::Result<Self> {
        if context.args.cluster.kubernetes {
            kubernetes::establish(context).await
        } else {
            standalone::establish(context).await
        }
    }
}
