//! The cluster as an issuer of certificates.

use std::{path::PathBuf, time::Duration};

use kube::Client;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::{
    issued::names_of_usable,
    kind::CertificateKind,
    request::{Request, RequestError, obtain},
};
use crate::{
    certificates::{
        CertificateManager, CertificateNames, CertificateStore, Chain, Issuer, Judgement, Signer,
        Trouble, Wanted,
    },
    kubernetes::ClusterCas,
    model::NodeName,
    pki::{Credential, PrivateDir, StoreError},
};

/// What a server or an agent needs in order to have a certificate.
pub(crate) struct CertificateOptions {
    /// Reaches the API server.
    pub(crate) client: Client,
    /// The CAs of the cluster; the certificates of the other ends must be of one of them.
    pub(crate) cas: ClusterCas,
    /// Where key and certificate are kept.
    pub(crate) cert_dir: PathBuf,
    /// A server's: those under which agents dial it; an agent's: those of its node. `None` while they are not known.
    pub(crate) names: watch::Receiver<Option<CertificateNames>>,
    /// The life to ask for; `None` leaves it to the signer.
    pub(crate) life: Option<Duration>,
}

/// Gets certificates of one kind.
pub(crate) struct CsrApi {
    kind: &'static CertificateKind,
    client: Client,
    cas: ClusterCas,
    /// Whose certificates are good; `None` takes those of any names.
    node: Option<NodeName>,
    life: Option<Duration>,
}

impl CertificateOptions {
    /// Opens the store; nothing is asked of the API server.
    pub(super) fn into_manager(
        self,
        kind: &'static CertificateKind,
        node: Option<NodeName>,
    ) -> Result<CertificateManager<CsrApi>, StoreError> {
        let store = CertificateStore::new(PrivateDir::create(&self.cert_dir)?, kind.role);
        let signer = Signer::Cluster { exact: kind.exact };
        let cas = self.cas.clone();
        let issuer = CsrApi {
            kind,
            client: self.client,
            cas: self.cas,
            node,
            life: self.life,
        };
        Ok(CertificateManager::new(
            (issuer, signer),
            store,
            self.names,
            cas,
        ))
    }
}

impl Issuer for CsrApi {
    fn judge(&self, credential: &Credential, now: OffsetDateTime) -> Judgement {
        let names = names_of_usable(credential, self.kind, &self.cas.borrow(), now)
            .map_err(|unusable| unusable.to_string())?;
        match &self.node {
            Some(node) if !names.dns.iter().eq([node.as_str()]) => {
                Err(format!("it is for {names}"))
            }
            _ => Ok(names),
        }
    }

    async fn issue(&self, wanted: &Wanted<'_>, trouble: Trouble<'_>) -> anyhow::Result<Chain> {
        let request = Request {
            kind: self.kind,
            names: wanted.names,
            key: wanted.key,
            life: self.life,
        };
        Ok(obtain(&self.client, &request, trouble).await?)
    }

    fn is_refusal(&self, error: &anyhow::Error) -> bool {
        error.downcast_ref().is_none_or(RequestError::is_refusal)
    }
}
