//! The certificate by which kubelets know a server of a cluster that asks them something itself.

use super::{
    csr_api::{CertificateOptions, CsrApi},
    kind::PROXY,
};
use crate::{
    certificates,
    model::NodeName,
    pki::{ClientIdentity, client_identity},
};

/// A server's certificate for kubelets, signed by the cluster.
pub(crate) type ProxyCertificate =
    certificates::PublishedCertificate<CsrApi, Option<ClientIdentity>>;

impl ProxyCertificate {
    /// Loads the certificate if there is one. Nothing is asked of the API server.
    pub(crate) fn new(machine: NodeName, options: CertificateOptions) -> anyhow::Result<Self> {
        let manager = options.into_manager(&PROXY, Some(machine))?;
        Self::load(manager, None, |credential, _| {
            client_identity(credential).map(Some)
        })
    }
}
