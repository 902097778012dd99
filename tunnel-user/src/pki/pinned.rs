//! Trust in a server whose CA is known by its hash alone.
//!
//! A joining agent has no certificate of the CA yet. The server sends it along in its chain; the
//! hash in the join command says whether it is the right one, and only then does the ordinary
//! verification (chain, name, usage, time) run with it as the one root.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{CaPin, ServerProof, server_verifier::check_server};

/// No certificate that the server presented has the pinned key.
#[derive(Debug, thiserror::Error)]
#[error(
    "the server's CA is not the one with the hash {expected}: it presented {presented}; either \
     --ca-hash belongs to another server (`culvert token create` prints the right one), or \
     something between this machine and the server intercepts the connection"
)]
pub struct PinMismatch {
    expected: CaPin,
    presented: String,
}

/// Accepts chains that end in the CA with this pin.
#[derive(Debug)]
pub(super) struct PinnedVerifier {
    pin: CaPin,
    provider: Arc<CryptoProvider>,
}

impl PinnedVerifier {
    pub(super) fn new(pin: CaPin, provider: Arc<CryptoProvider>) -> Self {
        Self { pin, provider }
    }

    fn pinned_ca<'a>(
        &self,
        chain: &'a [CertificateDer<'a>],
    ) -> Result<&'a CertificateDer<'a>, PinMismatch> {
        chain
            .iter()
            .find(|certificate| CaPin::of(certificate) == Some(self.pin))
            .ok_or_else(|| PinMismatch {
                expected: self.pin,
                presented: presented(chain),
            })
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = self.pinned_ca(intermediates).map_err(other)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&self.provider))
            .build()
            .map_err(other)?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .and_then(|verified| {
                check_server(end_entity, ServerProof::OwnCa)?;
                Ok(verified)
            })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn presented(chain: &[CertificateDer<'_>]) -> String {
    let pins: Vec<String> = chain
        .iter()
        .filter_map(CaPin::of)
        .map(|pin| pin.to_string())
        .collect();
    if pins.is_empty() {
        return "no CA at all".to_owned();
    }
    pins.join(", ")
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}
