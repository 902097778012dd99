//! A private key and its certificates in one file, so that they can never be of two generations.

use pem::Pem;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use super::Validity;

/// A private key with the certificate for it and those of its issuers.
#[derive(Debug)]
pub struct Credential {
    /// The leaf first, then its issuers; at least the leaf.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key.
    pub key: PrivateKeyDer<'static>,
    /// The life of the leaf.
    pub validity: Validity,
}

/// Why a file is not a [`Credential`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCredential {
    /// There is no private key in it.
    #[error("it holds no PEM private key")]
    NoKey,
    /// There is no certificate in it.
    #[error("it holds no PEM certificate that can be read")]
    NoCertificate,
}

impl Credential {
    /// Puts a key and its certificates together.
    pub fn new(
        key: PrivateKeyDer<'static>,
        chain: Vec<CertificateDer<'static>>,
    ) -> Result<Self, InvalidCredential> {
        let validity = chain
            .first()
            .and_then(Validity::of)
            .ok_or(InvalidCredential::NoCertificate)?;
        Ok(Self {
            chain,
            key,
            validity,
        })
    }

    /// Reads what [`to_pem`](Self::to_pem) wrote.
    pub fn from_pem(text: &[u8]) -> Result<Self, InvalidCredential> {
        let key = PrivateKeyDer::from_pem_slice(text).map_err(|_| InvalidCredential::NoKey)?;
        let chain = CertificateDer::pem_slice_iter(text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| InvalidCredential::NoCertificate)?;
        Self::new(key, chain)
    }

    /// Key and certificates as one PEM file.
    pub fn to_pem(&self) -> String {
        let label = match self.key {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        let mut text = pem::encode(&Pem::new(label, self.key.secret_der()));
        for certificate in &self.chain {
            text.push_str(&certificate_pem(certificate));
        }
        text
    }

    /// The same without the certificates of the issuers.
    #[must_use]
    pub fn without_issuers(&self) -> Self {
        Self {
            chain: vec![self.leaf().clone()],
            key: self.key.clone_key(),
            validity: self.validity,
        }
    }

    /// The certificate itself.
    pub fn leaf(&self) -> &CertificateDer<'static> {
        // `new` refuses an empty chain.
        &self.chain[0]
    }
}

/// A certificate in PEM.
pub fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
    pem::encode(&Pem::new("CERTIFICATE", certificate.as_ref()))
}
