//! What a server publishes of a certificate: a TLS configuration, and how long it lives.

use std::sync::Arc;

use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{CertificateManager, Issuer, manager::Published};
use crate::pki::{Credential, TlsError, Validity};

/// By which agents know a server: the configuration of its agent port. Until there is a certificate, handshakes fail.
pub(crate) type ServerCertificate<I> = PublishedCertificate<I, Arc<ServerConfig>>;
/// By which other servers know it: the configuration of its links to them. Until there is one, nothing is relayed.
pub(crate) type RelayCertificate<I> = PublishedCertificate<I, Option<Arc<ClientConfig>>>;

/// Makes the configuration with a certificate, for the other ends of these CAs.
type MakeTls<C> = fn(&Credential, &[CertificateDer<'static>]) -> Result<C, TlsError>;

/// Keeps a certificate fresh and publishes the TLS configuration with it.
pub(crate) struct PublishedCertificate<I, C> {
    manager: CertificateManager<I>,
    tls: PublishedTls<C>,
}

struct PublishedTls<C> {
    make: MakeTls<C>,
    configs: watch::Sender<C>,
    validities: watch::Sender<Option<Validity>>,
}

impl<I: Issuer, C: Send + Sync + 'static> PublishedCertificate<I, C> {
    /// Loads the certificate if there is one; nobody is asked. `without` is published until there is.
    pub(crate) fn load(
        mut manager: CertificateManager<I>,
        without: C,
        make: MakeTls<C>,
    ) -> anyhow::Result<Self> {
        let stored = manager.load()?;
        let tls = PublishedTls {
            make,
            configs: watch::Sender::new(without),
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

    /// Follows the configuration.
    pub(crate) fn configs(&self) -> watch::Receiver<C> {
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

impl<C: Send + Sync> Published for PublishedTls<C> {
    fn publish(&self, new: &Credential, cas: &[CertificateDer<'static>]) -> anyhow::Result<()> {
        self.configs.send_replace((self.make)(new, cas)?);
        self.validities.send_replace(Some(new.validity));
        Ok(())
    }

    /// Neither agents nor servers say so.
    async fn refused(&self) {
        std::future::pending::<()>().await;
    }
}
