//! Certificate requests. Of a request only the public key counts: the names that it asks for are
//! never read, the issuer decides them.

use std::fmt;

use rcgen::{CertificateParams, CertificateSigningRequestParams, KeyPair, PublicKeyData as _};
use rustls_pki_types::CertificateSigningRequestDer;
use sha2::{Digest as _, Sha256};

/// A request whose sender has proved that it holds the private key.
#[derive(Debug)]
pub struct AgentCsr {
    pub(super) public_key: rcgen::PublicKey,
}

/// Names a public key: the SHA-256 of its `SubjectPublicKeyInfo`, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct SubjectKey(String);

/// Why a certificate request is not usable.
#[derive(Debug, thiserror::Error)]
#[error("the certificate request is not usable")]
pub struct InvalidCsr(#[from] rcgen::Error);

/// A new private key (ECDSA P-256, which every TLS stack in use speaks).
pub fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate()
}

/// The DER of a certificate request for this key, which names nobody.
pub fn request(key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    Ok(params.serialize_request(key)?.der().to_vec())
}

impl AgentCsr {
    /// Reads a request and checks its signature.
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidCsr> {
        let der = CertificateSigningRequestDer::from(der);
        let public_key = CertificateSigningRequestParams::from_der(&der)?.public_key;
        Ok(Self { public_key })
    }

    /// The key that the request is for.
    pub fn subject_key(&self) -> SubjectKey {
        SubjectKey::of(&self.public_key.subject_public_key_info())
    }
}

impl SubjectKey {
    /// Names the key with this `SubjectPublicKeyInfo` (DER).
    pub fn of(spki: &[u8]) -> Self {
        Self(hex::encode(Sha256::digest(spki)))
    }
}

impl fmt::Display for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
