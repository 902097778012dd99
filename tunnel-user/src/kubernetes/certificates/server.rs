//! The certificate by which agents know a server of a cluster.

use std::sync::Arc;

use super::{
    csr_api::{CertificateOptions, CsrApi},
    kind::SERVER,
};
use crate::{
    certificates,
    pki::{server_config_requiring_certificates, server_config_without_certificate},
};

/// A server's certificate, signed by the cluster.
pub(crate) type ServerCertificate = certificates::ServerCertificate<CsrApi>;

impl ServerCertificate {
    /// Loads the certificate if there is one. Nothing is asked of the API server.
    pub(crate) fn new(options: CertificateOptions) -> anyhow::Result<Self> {
        let manager = options.into_manager(&SERVER, None)?;
        let without = Arc::new(server_config_without_certificate()?);
        Self::load(manager, without, |credential, cas| {
            server_config_requiring_certificates(credential, cas).map(Arc::new)
        })
    }
}

#[cfg(test)]
mod tests;
