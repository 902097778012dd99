//! The certificate that an agent of a cluster proves its node with.

use tokio_util::sync::CancellationToken;

use super::{
    csr_api::{CertificateOptions, CsrApi},
    kind::{AGENT, SERVER_PROOF},
};
use crate::{
    certificates::{self, Trouble},
    model::NodeName,
    pki::{AgentProof, client_config},
};

/// An agent's credential, signed by the cluster.
pub(crate) type AgentCredentials = certificates::AgentCredentials<CsrApi>;

impl AgentCredentials {
    /// Loads the stored certificate, for which no API server is needed; or asks for one, for as
    /// long as it takes, until `shutdown`. `trouble` hears why it takes long.
    pub(crate) async fn establish(
        node: NodeName,
        options: CertificateOptions,
        trouble: Trouble<'_>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let manager = options.into_manager(&AGENT, Some(node))?;
        let (proof, make) = (AgentProof::ClusterSubject, |credential: &_, cas: &_| {
            client_config(credential, cas, SERVER_PROOF)
        });
        Self::load_or_obtain(manager, (proof, make), trouble, shutdown).await
    }
}

#[cfg(test)]
mod tests;
