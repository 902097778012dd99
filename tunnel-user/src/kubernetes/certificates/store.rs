//! The files of one certificate.
//!
//! ```text
//!  <role>.pem          key and certificates in one file: always of one generation
//!  <role>.pending.key  the key of a request that is under way, also after a restart
//! ```
//! Several processes may share them: a server and the one that takes over from it.

use std::path::{Path, PathBuf};

use rcgen::KeyPair;

use super::kind::CertificateKind;
use crate::pki::{Credential, InvalidCredential, PrivateDir, StoreError, pending_key};

/// Where a certificate is kept.
#[derive(Debug)]
pub(super) struct CertificateStore {
    dir: PrivateDir,
    certificate: String,
    pending_key: String,
}

impl CertificateStore {
    pub(super) fn create(path: &Path, kind: &CertificateKind) -> Result<Self, StoreError> {
        Ok(Self {
            dir: PrivateDir::create(path)?,
            certificate: format!("{}.pem", kind.role),
            pending_key: format!("{}.pending.key", kind.role),
        })
    }

    /// Where the certificate is or would be.
    pub(super) fn file(&self) -> PathBuf {
        self.dir.file(&self.certificate)
    }

    /// What is stored; `None` where nothing is.
    pub(super) fn load(&self) -> Result<Option<Result<Credential, InvalidCredential>>, StoreError> {
        let content = self.dir.read(&self.certificate)?;
        Ok(content.map(|content| Credential::from_pem(&content)))
    }

    pub(super) fn save(&self, credential: &Credential) -> Result<(), StoreError> {
        self.dir
            .write(&self.certificate, credential.to_pem().as_bytes())
    }

    /// The key of the request that is under way, or a new one, on disk before anybody hears of it.
    pub(super) fn pending_key(&self) -> anyhow::Result<KeyPair> {
        pending_key(&self.dir, &self.pending_key)
    }

    /// The request is over: the next one has another key.
    pub(super) fn forget_pending_key(&self) -> Result<(), StoreError> {
        self.dir.remove(&self.pending_key).map(drop)
    }
}
