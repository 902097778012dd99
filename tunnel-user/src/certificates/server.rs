//! What a server publishes of its certificate: the TLS configuration of the agent port.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{CertificateManager, Issuer, manager::Published};
use crate::pki::{Credential, TlsError, Validity, server_config_without_certificate};

/// Makes the configuration with a certificate, for agents of these CAs.
type MakeTls = fn(&Credential, &[CertificateDer<'static>]) -> Result<ServerConfig, TlsError>;

/// Keeps the server's certificate fresh and publishes the TLS configuration with it. Until there
/// is a certificate, handshakes fail.
pub(crate) struct ServerCertificate<I> {
    manager: CertificateManager<I>,
    tls: ServerTls,
}

struct ServerTls {
    make: MakeTls,
    configs: watch::Sender<Arc<ServerConfig>>,
    validities: watch::Sender<Option<Validity>>,
}

impl<I: Issuer> ServerCertificate<I> {
    /// Loads the certificate if there is one. Nobody is asked.
    pub(crate) fn load(mut manager: CertificateManager<I>, make: MakeTls) -> anyhow::Result<Self> {
        let stored = manager.load()?;
        let tls = ServerTls {
            make,
            configs: watch::Sender::new(Arc::new(server_config_without_certificate()?)),
            validities: watch::Sender::new(None),
        };
        let certificate = Self { manager, tls };
        if let Some(stored) = stored {
            certificate.publish(&stored);
        }
        Ok(certificate)
    }

    /// Asks for a certificate if there is none: once.
    pub(crate) async fn or_issued(mut self) -> anyhow::Result<Self> {
        if self.tls.validities.borrow().is_none() {
            let first = self.manager.issue().await?;
            self.publish(&first);
        }
        Ok(self)
    }

    /// Follows the configuration for the agent port.
    pub(crate) fn configs(&self) -> watch::Receiver<Arc<ServerConfig>> {
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

    pub(crate) fn publish(&self, credential: &Credential) {
        self.manager.publish(&self.tls, credential);
    }
}

impl Published for ServerTls {
    fn publish(&self, new: &Credential, cas: &[CertificateDer<'static>]) -> anyhow::Result<()> {
        let config = (self.make)(new, cas)?;
        self.configs.send_replace(Arc::new(config));
        self.validities.send_replace(Some(new.validity));
        Ok(())
    }

    /// Agents do not say so.
    async fn refused(&self) {
        std::future::pending::<()>().await;
    }
}
