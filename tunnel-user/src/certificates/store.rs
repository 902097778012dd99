//! The files of one certificate.
//!
//! ```text
//!  <role>.pem          key and certificates in one file: always of one generation
//!  <role>.pending.key  the key of a request that is under way, also after a restart: a lost answer
//!                      is asked for again with it
//! ```
//! Several processes may share them: a server and the one that takes over from it.

use std::path::PathBuf;

use rcgen::KeyPair;

use crate::pki::{Credential, InvalidCredential, PrivateDir, StoreError, new_key};

/// Where a certificate is kept.
#[derive(Debug)]
pub(crate) struct CertificateStore {
    dir: PrivateDir,
    pub(super) role: &'static str,
    pending_key: String,
}

impl CertificateStore {
    pub(crate) fn new(dir: PrivateDir, role: &'static str) -> Self {
        let pending_key = format!("{role}.pending.key");
        Self {
            dir,
            role,
            pending_key,
        }
    }

    /// With another name for the key of a request that is under way.
    pub(crate) fn with_pending_key(self, file: &str) -> Self {
        Self {
            pending_key: file.to_owned(),
            ..self
        }
    }

    /// Where the certificate is or would be.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.file(&self.certificate())
    }

    /// What is stored; `None` where nothing is.
    pub(crate) fn load(&self) -> Result<Option<Result<Credential, InvalidCredential>>, StoreError> {
        let content = self.dir.read(&self.certificate())?;
        Ok(content.map(|content| Credential::from_pem(&content)))
    }

    pub(crate) fn save(&self, credential: &Credential) -> Result<(), StoreError> {
        self.dir
            .write(&self.certificate(), credential.to_pem().as_bytes())
    }

    /// The key of the request that is under way, or a new one, on disk before anybody hears of it.
    pub(crate) fn pending_key(&self) -> anyhow::Result<KeyPair> {
        let stored = self.dir.read(&self.pending_key)?;
        let key = stored
            .and_then(|pem| String::from_utf8(pem).ok())
            .and_then(|pem| KeyPair::from_pem(&pem).ok());
        if let Some(key) = key {
            return Ok(key);
        }
        let key = new_key()?;
        self.dir
            .write(&self.pending_key, key.serialize_pem().as_bytes())?;
        Ok(key)
    }

    /// The request is over: the next one has another key.
    pub(crate) fn forget_pending_key(&self) -> Result<(), StoreError> {
        self.dir.remove(&self.pending_key).map(drop)
    }

    fn certificate(&self) -> String {
        format!("{}.pem", self.role)
    }
}
