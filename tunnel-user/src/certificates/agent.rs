//! What an agent publishes of its certificate: whom it proves, and the TLS configuration of sessions.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{CertificateManager, Issuer, Trouble, manager::Published};
use crate::{
    model::AgentIdentity,
    pki::{AgentProof, Credential, TlsError, Validity, agent_identity},
    wait::wait_for,
};

/// Makes the configuration with a certificate, for servers of these CAs.
type MakeTls = fn(&Credential, &[CertificateDer<'static>]) -> Result<ClientConfig, TlsError>;

/// The credential, kept fresh by [`run`](Self::run).
pub(crate) struct AgentCredentials<I> {
    manager: CertificateManager<I>,
    tls: AgentTls,
}

struct AgentTls {
    proof: AgentProof,
    make: MakeTls,
    identities: watch::Sender<AgentIdentity>,
    configs: watch::Sender<Arc<ClientConfig>>,
    validities: watch::Sender<Validity>,
    /// `sessions --a configuration whose certificate a server refused--> this`
    refused_tx: watch::Sender<Option<Arc<ClientConfig>>>,
}

impl<I: Issuer> AgentCredentials<I> {
    /// Loads the stored certificate, for which nobody is needed; or asks for one, for as long as it
    /// takes, until `shutdown`. `trouble` hears why it takes long.
    pub(crate) async fn load_or_obtain(
        mut manager: CertificateManager<I>,
        (proof, make): (AgentProof, MakeTls),
        trouble: Trouble<'_>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let credential = if let Some(stored) = manager.load()? {
            stored
        } else {
            tokio::select! {
                () = shutdown.cancelled() => bail!("stopped before the agent had a certificate"),
                issued = manager.next(trouble) => issued,
            }
        };
        let file = manager.store.file();
        let tls = AgentTls::new(proof, make, &credential, &manager.cas.borrow())
            .with_context(|| format!("cannot use the certificate in {}", file.display()))?;
        Ok(Self { manager, tls })
    }

    /// Follows what the certificate proves: the names to register.
    pub(crate) fn identities(&self) -> watch::Receiver<AgentIdentity> {
        self.tls.identities.subscribe()
    }

    /// Follows the configuration for sessions. One with more addresses is here before the identity
    /// names them, and one with fewer after it no longer does.
    pub(crate) fn configs(&self) -> watch::Receiver<Arc<ClientConfig>> {
        self.tls.configs.subscribe()
    }

    /// Follows the certificate's life.
    pub(crate) fn validities(&self) -> watch::Receiver<Validity> {
        self.tls.validities.subscribe()
    }

    /// To be told of a certificate that servers refuse, though they would take a newer one.
    pub(crate) fn refused_tx(&self) -> watch::Sender<Option<Arc<ClientConfig>>> {
        self.tls.refused_tx.clone()
    }

    /// The CAs of servers.
    pub(crate) fn cas(&self) -> watch::Receiver<Vec<CertificateDer<'static>>> {
        self.manager.cas.clone()
    }

    /// Gets a certificate whenever one is needed: in time before the old one ends, when the node's
    /// addresses change, and when servers refuse the one in use.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        self.manager.run(self.tls, &|_| {}, shutdown).await;
    }
}

impl AgentTls {
    fn new(
        proof: AgentProof,
        make: MakeTls,
        credential: &Credential,
        cas: &[CertificateDer<'static>],
    ) -> anyhow::Result<Self> {
        let identity = agent_identity(credential.leaf(), proof)?;
        Ok(Self {
            proof,
            make,
            identities: watch::Sender::new(identity),
            configs: watch::Sender::new(Arc::new(make(credential, cas)?)),
            validities: watch::Sender::new(credential.validity),
            refused_tx: watch::Sender::new(None),
        })
    }

    fn prove(&self, identity: AgentIdentity) {
        self.identities.send_if_modified(|proved| {
            let changed = *proved != identity;
            *proved = identity;
            changed
        });
    }
}

impl Published for AgentTls {
    /// A session that begins at any moment of this registers nothing that its certificate does not
    /// name.
    fn publish(&self, new: &Credential, cas: &[CertificateDer<'static>]) -> anyhow::Result<()> {
        let identity = agent_identity(new.leaf(), self.proof)?;
        let config = (self.make)(new, cas)?;
        let mut proved_by_both = identity.clone();
        let old = self.identities.borrow().addresses.clone();
        proved_by_both.addresses.retain(|ip| old.contains(ip));
        self.prove(proved_by_both);
        self.configs.send_replace(Arc::new(config));
        self.prove(identity);
        self.validities.send_replace(new.validity);
        Ok(())
    }

    async fn refused(&self) {
        let in_use = Arc::clone(&self.configs.borrow());
        let is_in_use = |refused: &Option<Arc<ClientConfig>>| {
            refused
                .as_ref()
                .is_some_and(|refused| Arc::ptr_eq(refused, &in_use))
        };
        wait_for(&mut self.refused_tx.subscribe(), is_in_use).await;
    }
}
