//! The certificate that an agent of a cluster proves its node with.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use kube::Client;
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{
    CertificateNames,
    kind::{AGENT, SERVER_PROOF},
    manager::{CertificateManager, DesiredNames, Signer},
};
use crate::{
    kubernetes::ClusterCas,
    model::{AgentIdentity, NodeName},
    observability::chain,
    pki::{AgentProof, Credential, Validity, agent_identity, client_config},
    wait::{changed, wait_for},
};

/// What an agent needs in order to have a certificate.
pub struct AgentCredentialsOptions {
    /// Reaches the API server.
    pub client: Client,
    /// The CAs of the cluster; servers' certificates must be of one of them.
    pub cas: ClusterCas,
    /// Where key and certificate are kept.
    pub cert_dir: PathBuf,
    /// The node.
    pub node: NodeName,
    /// The addresses of the Node object; empty while they are not known.
    pub addresses: watch::Receiver<BTreeSet<IpAddr>>,
    /// The life to ask for; `None` leaves it to the signer.
    pub life: Option<Duration>,
}

/// The credential, kept fresh by [`run`](Self::run).
pub struct AgentCredentials {
    manager: CertificateManager<BTreeSet<IpAddr>>,
    cas: ClusterCas,
    identities: watch::Sender<AgentIdentity>,
    configs: watch::Sender<Arc<ClientConfig>>,
    validities: watch::Sender<Validity>,
    /// `sessions --a configuration whose certificate a server refused--> this`
    refused_tx: watch::Sender<Option<Arc<ClientConfig>>>,
}

/// What one certificate gives.
struct Established {
    identity: AgentIdentity,
    config: Arc<ClientConfig>,
    validity: Validity,
}

impl AgentCredentials {
    /// Loads the stored certificate, for which no API server is needed; or asks for one, for as
    /// long as it takes, until `shutdown`. `watch_logger` hears why it takes long.
    pub async fn establish(
        options: AgentCredentialsOptions,
        watch_logger: &(dyn Fn(String) + Sync),
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let AgentCredentialsOptions {
            client,
            cas,
            cert_dir,
            node,
            addresses,
            life,
        } = options;
        let signer = Signer {
            client,
            cas: cas.clone(),
            life,
        };
        let dns = BTreeSet::from([node.to_string()]);
        let is_of_node = {
            let dns = dns.clone();
            move |names: &CertificateNames| names.dns == dns
        };
        let desired = DesiredNames {
            source: addresses,
            names: Box::new(move |addresses: &BTreeSet<IpAddr>| {
                (!addresses.is_empty()).then(|| CertificateNames {
                    dns: dns.clone(),
                    ips: addresses.iter().map(IpAddr::to_canonical).collect(),
                })
            }),
        };
        let mut manager = CertificateManager::new(&AGENT, signer, &cert_dir, desired)?;
        let credential = if let Some(stored) = manager.load(is_of_node)? {
            stored
        } else {
            tokio::select! {
                () = shutdown.cancelled() => bail!("stopped before the agent had a certificate"),
                issued = manager.next(watch_logger) => issued,
            }
        };
        let established = Established::new(&credential, &cas.borrow()).with_context(|| {
            format!("cannot use the certificate in {}", manager.file().display())
        })?;
        Ok(Self {
            manager,
            cas,
            identities: watch::Sender::new(established.identity),
            configs: watch::Sender::new(established.config),
            validities: watch::Sender::new(established.validity),
            refused_tx: watch::Sender::new(None),
        })
    }

    /// Follows what the certificate proves: the names to register.
    pub fn identities(&self) -> watch::Receiver<AgentIdentity> {
        self.identities.subscribe()
    }

    /// Follows the configuration for sessions. One with more addresses is here before the identity
    /// names them, and one with fewer after it no longer does.
    pub fn configs(&self) -> watch::Receiver<Arc<ClientConfig>> {
        self.configs.subscribe()
    }

    /// Follows the certificate's life.
    pub fn validities(&self) -> watch::Receiver<Validity> {
        self.validities.subscribe()
    }

    /// To be told of a certificate that servers refuse, though they would take a newer one.
    pub fn refused_tx(&self) -> watch::Sender<Option<Arc<ClientConfig>>> {
        self.refused_tx.clone()
    }

    /// Gets a certificate whenever one is needed: in time before the old one ends, when the node's
    /// addresses change, and when servers refuse the one in use.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut refused_rx = self.refused_tx.subscribe();
        loop {
            let in_use = Arc::clone(&self.configs.borrow());
            let is_in_use = |refused: &Option<Arc<ClientConfig>>| {
                refused
                    .as_ref()
                    .is_some_and(|refused| Arc::ptr_eq(refused, &in_use))
            };
            let credential = tokio::select! {
                () = shutdown.cancelled() => return,
                () = wait_for(&mut refused_rx, is_in_use), if !self.manager.is_refused() => {
                    self.manager.refuse();
                    continue;
                }
                () = changed(&mut self.cas) => match self.manager.under_other_cas() {
                    Some(in_use) => in_use,
                    None => continue,
                },
                credential = self.manager.next(&|_| {}) => credential,
            };
            let established = Established::new(&credential, &self.cas.borrow_and_update());
            match established {
                Ok(established) => self.publish(established),
                Err(error) => {
                    error!(
                        file = %self.manager.file().display(),
                        error = chain(error.as_ref()),
                        "cannot use the agent's certificate"
                    );
                }
            }
        }
    }

    /// A session that begins at any moment of this registers nothing that its certificate does not
    /// name.
    fn publish(&self, new: Established) {
        let proved_by_both = {
            let old = self.identities.borrow();
            let addresses = new.identity.addresses.iter().copied();
            AgentIdentity {
                addresses: addresses.filter(|ip| old.addresses.contains(ip)).collect(),
                ..new.identity.clone()
            }
        };
        self.identities.send_replace(proved_by_both);
        self.configs.send_replace(new.config);
        self.identities.send_replace(new.identity);
        self.validities.send_replace(new.validity);
    }
}

impl Established {
    fn new(credential: &Credential, cas: &[CertificateDer<'static>]) -> anyhow::Result<Self> {
        Ok(Self {
            identity: agent_identity(credential.leaf(), AgentProof::ClusterSubject)?,
            config: Arc::new(client_config(credential, cas, SERVER_PROOF)?),
            validity: credential.validity,
        })
    }
}

#[cfg(test)]
mod tests;
