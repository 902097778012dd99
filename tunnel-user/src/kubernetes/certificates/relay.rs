//! The certificate by which a server of a cluster proves to other servers that it is one.

use std::sync::Arc;

use super::{
    csr_api::{CertificateOptions, CsrApi},
    kind::{RELAY, SERVER_PROOF},
};
use crate::{certificates, model::NodeName, pki::client_config};

/// A relaying server's certificate, signed by the cluster.
pub(crate) type RelayCertificate = certificates::RelayCertificate<CsrApi>;

impl RelayCertificate {
    /// Loads the certificate if there is one. Nothing is asked of the API server.
    pub(crate) fn new(machine: NodeName, options: CertificateOptions) -> anyhow::Result<Self> {
        let manager = options.into_manager(&RELAY, Some(machine))?;
        Self::load(manager, None, |credential, cas| {
            let config = client_config(credential, cas, SERVER_PROOF)?;
            Ok(Some(Arc::new(config)))
        })
    }
}
