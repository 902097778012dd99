//! What the entries of a kubeconfig hold: keys, certificates, tokens.
//!
//! They are looked through before `kube` reads them, which says neither whose key or certificate it
//! cannot use nor where that is.

use std::fs;

use k8s_openapi::ByteString;
use rustls::{RootCertStore, crypto::aws_lc_rs::sign::any_supported_type};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::Value;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

/// An entry that cannot be used, or two that do not fit together.
#[derive(Debug, thiserror::Error)]
#[error("{entry} {what}")]
pub struct BadEntry {
    entry: String,
    what: String,
}

/// The content of one entry, which is written there or in a file that it names.
pub(super) struct Content {
    pub(super) entry: String,
    bytes: Vec<u8>,
}

impl BadEntry {
    pub(super) fn new(entry: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            entry: entry.into(),
            what: what.into(),
        }
    }
}

impl Content {
    /// Reads the entry `name` below `owner`, or `name-data`, which comes first; `None` where there is
    /// neither.
    pub(super) fn read(
        owner: &str,
        name: &str,
        data: Option<&str>,
        file: Option<&str>,
    ) -> Result<Option<Self>, BadEntry> {
        match (data, file) {
            (Some(text), _) => {
                let entry = format!("{owner}.{name}-data");
                let decoded: Result<ByteString, _> =
                    serde_json::from_value(Value::String(text.trim().to_owned()));
                match decoded {
                    Ok(bytes) => Self::new(entry, bytes.0).map(Some),
                    Err(_) => Err(BadEntry::new(
                        entry,
                        format!(
                            "is not base64: write the file there as `base64 -w0` prints it, or name \
                             the file in {name}"
                        ),
                    )),
                }
            }
            (None, Some(file)) => {
                Self::read_file(format!("{owner}.{name} ({file})"), file).map(Some)
            }
            (None, None) => Ok(None),
        }
    }

    /// A file that is named nowhere.
    pub(super) fn of_file(file: &str) -> Result<Self, BadEntry> {
        Self::read_file(file.to_owned(), file)
    }

    fn read_file(entry: String, file: &str) -> Result<Self, BadEntry> {
        match fs::read(file) {
            Ok(bytes) => Self::new(entry, bytes),
            Err(error) => Err(BadEntry::new(
                entry,
                format!("cannot be read: {error}: correct the path, or let this user read it"),
            )),
        }
    }

    fn new(entry: String, bytes: Vec<u8>) -> Result<Self, BadEntry> {
        if bytes.trim_ascii().is_empty() {
            return Err(BadEntry::new(entry, "is empty: fill it, or remove it"));
        }
        Ok(Self { entry, bytes })
    }

    pub(super) fn bad(&self, what: impl Into<String>) -> BadEntry {
        BadEntry::new(self.entry.clone(), what)
    }

    /// The text of a token.
    pub(super) fn token(&self) -> Result<(), BadEntry> {
        let is_text = str::from_utf8(&self.bytes)
            .is_ok_and(|text| text.trim().chars().all(|c| c.is_ascii_graphic()));
        is_text.then_some(()).ok_or_else(|| {
            self.bad("holds no token, which is one word: put the one of a service account there")
        })
    }

    /// Certificates in PEM, at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, BadEntry> {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        let certificates = read.map_err(|error| self.bad(format!("is not PEM: {error}")))?;
        if certificates.is_empty() {
            return Err(self.bad("holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"));
        }
        for (index, der) in certificates.iter().enumerate() {
            if let Err(error) = X509Certificate::from_der(der) {
                let number = index + 1;
                return Err(self.bad(format!(
                    "holds a certificate, number {number}, that cannot be read: {error}"
                )));
            }
        }
        Ok(certificates)
    }

    /// Certificates by which a server can be verified.
    pub(super) fn authorities(&self) -> Result<(), BadEntry> {
        let mut roots = RootCertStore::empty();
        for (index, ca) in self.certificates()?.into_iter().enumerate() {
            let number = index + 1;
            roots.add(ca).map_err(|error| {
                self.bad(format!(
                    "holds a certificate, number {number}, that can be no CA's: {error}"
                ))
            })?;
        }
        Ok(())
    }

    /// Whether this is the private key of that certificate, of whatever version that is.
    pub(super) fn is_key_of(&self, certificate: &Self) -> Result<(), BadEntry> {
        let key = PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|_| {
            self.bad(
                "holds no private key in PEM (PKCS #8, PKCS #1 or SEC 1): one with a password has to \
                 be decrypted, as by `openssl pkey`",
            )
        })?;
        let key = any_supported_type(&key).map_err(|error| {
            self.bad(format!("holds a private key that cannot be used: {error}"))
        })?;
        let certificates = certificate.certificates()?;
        let (_, leaf) = X509Certificate::from_der(&certificates[0])
            .map_err(|error| certificate.bad(format!("cannot be read: {error}")))?;
        match key.public_key() {
            Some(public) if public.as_ref() != leaf.public_key().raw => Err(self.bad(format!(
                "is not the key of the certificate in {}: give the two that belong together",
                certificate.entry
            ))),
            Some(_) | None => Ok(()),
        }
    }
}
