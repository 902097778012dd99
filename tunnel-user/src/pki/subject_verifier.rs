//! Trust in a server that is known by its subject, besides its chain and its name.
//!
//! A cluster's CA signs serving certificates for every kubelet as well, and for addresses that the
//! kubelet itself states: name and chain alone would let any node pose as the server.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::Subject;

/// A good certificate of the right CA, for the right name, that is somebody else's.
#[derive(Debug, thiserror::Error)]
#[error(
    "the certificate is of {presented:?}, not the server's: servers are known by {expected}; \
     something else answers at the server's address"
)]
struct NotTheServer {
    expected: Subject,
    presented: String,
}

/// Accepts what webpki accepts, of this subject.
#[derive(Debug)]
pub(super) struct SubjectVerifier {
    pub(super) webpki: Arc<WebPkiServerVerifier>,
    pub(super) subject: Subject,
}

impl ServerCertVerifier for SubjectVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.webpki.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        let (_, certificate) =
            X509Certificate::from_der(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        if self.subject.is_exactly(certificate.subject()) {
            return Ok(verified);
        }
        let other = NotTheServer {
            expected: self.subject,
            presented: certificate.subject().to_string(),
        };
        Err(CertificateError::Other(OtherError(Arc::new(other))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}
