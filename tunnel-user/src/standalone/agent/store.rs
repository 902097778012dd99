//! The agent's state directory.
//!
//! ```text
//!  agent.pem     key, certificate and the CA in one file: always of one generation
//!  joining.key   the key of an enrolment that was begun; a lost answer is asked for again with it
//! ```

use std::{path::Path, slice};

use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;

use crate::{
    model::AgentIdentity,
    pki::{
        AgentProof, Credential, InvalidCredential, PrivateDir, ServerProof, StoreError,
        UnprovedIdentity, agent_identity, client_config, pending_key,
    },
};

const CREDENTIAL: &str = "agent.pem";
const JOINING_KEY: &str = "joining.key";

/// Where the agent keeps what it is.
#[derive(Clone, Debug)]
pub(super) struct AgentStore {
    dir: PrivateDir,
}

/// A credential, and what it proves.
#[derive(Debug)]
pub(super) struct StoredIdentity {
    /// The agent's certificate alone, with its key.
    pub(super) credential: Credential,
    /// The CA that issued it, which also vouches for servers.
    pub(super) ca: CertificateDer<'static>,
    pub(super) identity: AgentIdentity,
}

/// Why a stored credential is not usable.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("{0}")]
    Credential(#[from] InvalidCredential),
    #[error("it lacks the CA's certificate")]
    NoCa,
    #[error("{0}")]
    Identity(#[from] UnprovedIdentity),
    #[error("its key does not belong to its certificate")]
    Tls,
}

impl StoredIdentity {
    /// Takes key, certificate and CA apart, after they have shown that they belong together.
    pub(super) fn new(mut credential: Credential) -> Result<Self, Unusable> {
        if credential.chain.len() < 2 {
            return Err(Unusable::NoCa);
        }
        let ca = credential.chain.remove(1);
        client_config(&credential, slice::from_ref(&ca), ServerProof::OwnCa)
            .map_err(|_| Unusable::Tls)?;
        Ok(Self {
            identity: agent_identity(credential.leaf(), AgentProof::Enrolment)?,
            credential,
            ca,
        })
    }
}

impl AgentStore {
    pub(super) fn create(path: &Path) -> Result<Self, StoreError> {
        let dir = PrivateDir::create(path)?;
        Ok(Self { dir })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The stored identity; `None` where there is none yet.
    pub(super) fn load(&self) -> Result<Option<Result<StoredIdentity, Unusable>>, StoreError> {
        let content = self.dir.read(CREDENTIAL)?;
        Ok(content.map(|content| StoredIdentity::new(Credential::from_pem(&content)?)))
    }

    pub(super) fn save(&self, stored: &StoredIdentity) -> Result<(), StoreError> {
        let pem = stored.credential.to_pem() + &crate::pki::certificate_pem(&stored.ca);
        self.dir.write(CREDENTIAL, pem.as_bytes())
    }

    /// The key of the enrolment that was begun, or a new one, on disk before anybody hears of it.
    pub(super) fn joining_key(&self) -> anyhow::Result<KeyPair> {
        pending_key(&self.dir, JOINING_KEY)
    }

    /// The enrolment is complete.
    pub(super) fn forget_joining_key(&self) -> Result<(), StoreError> {
        self.dir.remove(JOINING_KEY).map(drop)
    }
}
