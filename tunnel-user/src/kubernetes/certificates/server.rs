//! The certificate by which agents know a server of a cluster.

use std::{path::PathBuf, sync::Arc, time::Duration};

use kube::Client;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{
    CertificateNames,
    kind::SERVER,
    manager::{CertificateManager, DesiredNames, Signer},
};
use crate::{
    kubernetes::ClusterCas,
    observability::chain,
    pki::{
        Credential, Validity, server_config_requiring_certificates,
        server_config_without_certificate,
    },
    wait::changed,
};

/// What a server needs in order to have a certificate.
pub struct ServerCertificateOptions {
    /// Reaches the API server.
    pub client: Client,
    /// The CAs of the cluster; agents' certificates must be of one of them.
    pub cas: ClusterCas,
    /// Where key and certificate are kept.
    pub cert_dir: PathBuf,
    /// The names under which agents dial servers; `None` while they are not known.
    pub names: watch::Receiver<Option<CertificateNames>>,
    /// The life to ask for; `None` leaves it to the signer.
    pub life: Option<Duration>,
}

/// Keeps the server's certificate fresh and publishes the TLS configuration with it. Until there
/// is a certificate, handshakes fail.
pub struct ServerCertificate {
    manager: CertificateManager<Option<CertificateNames>>,
    cas: ClusterCas,
    configs: watch::Sender<Arc<ServerConfig>>,
    validities: watch::Sender<Option<Validity>>,
}

impl ServerCertificate {
    /// Loads the certificate if there is one. Nothing is asked of the API server.
    pub fn new(options: ServerCertificateOptions) -> anyhow::Result<Self> {
        let ServerCertificateOptions {
            client,
            cas,
            cert_dir,
            names,
            life,
        } = options;
        let signer = Signer {
            client,
            cas: cas.clone(),
            life,
        };
        let desired = DesiredNames {
            source: names,
            names: Box::new(|names: &Option<CertificateNames>| {
                names.clone().filter(|names| !names.is_empty())
            }),
        };
        let mut manager = CertificateManager::new(&SERVER, signer, &cert_dir, desired)?;
        let stored = manager.load(|_| true)?;
        let certificate = Self {
            manager,
            cas,
            configs: watch::Sender::new(Arc::new(server_config_without_certificate()?)),
            validities: watch::Sender::new(None),
        };
        if let Some(stored) = stored {
            certificate.publish(&stored);
        }
        Ok(certificate)
    }

    /// Follows the configuration for the agent port.
    pub fn configs(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.configs.subscribe()
    }

    /// Follows the certificate's life; `None` until there is one.
    pub fn validities(&self) -> watch::Receiver<Option<Validity>> {
        self.validities.subscribe()
    }

    /// Gets a certificate whenever one is needed; `watch_logger` hears why it takes long.
    pub async fn run(mut self, watch_logger: impl Fn(String) + Sync, shutdown: CancellationToken) {
        loop {
            let credential = tokio::select! {
                () = shutdown.cancelled() => return,
                () = changed(&mut self.cas) => match self.manager.under_other_cas() {
                    Some(in_use) => in_use,
                    None => continue,
                },
                credential = self.manager.next(&watch_logger) => credential,
            };
            self.publish(&credential);
        }
    }

    fn publish(&self, credential: &Credential) {
        match server_config_requiring_certificates(credential, &self.cas.borrow()) {
            Ok(config) => {
                self.configs.send_replace(Arc::new(config));
                self.validities.send_replace(Some(credential.validity));
            }
            Err(error) => {
                let file = self.manager.file();
                error!(file = %file.display(), error = chain(&error), "cannot use the server's certificate");
            }
        }
    }
}

#[cfg(test)]
mod tests;
