//! What a server publishes of the certificate by which other servers know it: the TLS configuration of its links to
//! them.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{CertificateManager, Issuer, manager::Published};
use crate::pki::{Credential, TlsError, Validity};

/// Makes the configuration with a certificate, for servers of these CAs.
type MakeTls = fn(&Credential, &[CertificateDer<'static>]) -> Result<ClientConfig, TlsError>;

/// Keeps the certificate fresh. Until there is one, nothing is relayed.
pub(crate) struct RelayCertificate<I> {
    manager: CertificateManager<I>,
    tls: RelayTls,
}

struct RelayTls {
    make: MakeTls,
    configs: watch::Sender<Option<Arc<ClientConfig>>>,
    validities: watch::Sender<Option<Validity>>,
}

impl<I: Issuer> RelayCertificate<I> {
    /// Loads the certificate if there is one. Nobody is asked.
    pub(crate) fn load(mut manager: CertificateManager<I>, make: MakeTls) -> anyhow::Result<Self> {
        let stored = manager.load()?;
        let tls = RelayTls {
            make,
            configs: watch::Sender::new(None),
            validities: watch::Sender::new(None),
        };
        if let Some(stored) = stored {
            manager.publish(&tls, &stored);
        }
        Ok(Self { manager, tls })
    }

    /// Follows the configuration for links; `None` until there is a certificate.
    pub(crate) fn configs(&self) -> watch::Receiver<Option<Arc<ClientConfig>>> {
        self.tls.configs.subscribe()
    }

    /// Follows the certificate's life; `None` until there is one.
    pub(crate) fn validities(&self) -> watch::Receiver<Option<Validity>> {
        self.tls.validities.subscribe()
    }

    /// Gets a certificate whenever one is needed; `trouble` hears why it takes long.
    pub(crate) async fn run(self, trouble: impl Fn(String) + Sync, shutdown: CancellationToken) {
        self.manager.run(self.tls, &trouble, shutdown).await;
    }
}

impl Published for RelayTls {
    fn publish(&self, new: &Credential, cas: &[CertificateDer<'static>]) -> anyhow::Result<()> {
        let config = (self.make)(new, cas)?;
        self.configs.send_replace(Some(Arc::new(config)));
        self.validities.send_replace(Some(new.validity));
        Ok(())
    }

    /// Servers do not say so.
    async fn refused(&self) {
        std::future::pending::<()>().await;
    }
}
