//! The server's state directory.
//!
//! ```text
//!  ca.pem ca.key        made once, never replaced by the program
//!  server.pem           key and certificate, renewed by the server
//!  tokens/<id>.json     what `culvert token` keeps
//!  nodes/<name>.json    the registered nodes
//! ```

use std::path::{Path, PathBuf};

use serde::{Serialize, de::DeserializeOwned};
use time::OffsetDateTime;
use tracing::{info, warn};

use super::chain;
use crate::pki::{Ca, CaError, PrivateDir, StoreError};

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
/// Before this program was written, as a machine says that has lost the time: 1970, or when its image was built.
const EARLIEST: OffsetDateTime = time::macros::datetime!(2026-11-01 00:00 UTC);

/// What a standalone server knows, in files.
pub struct State {
    pub(super) dir: PrivateDir,
    pub(super) tokens: PrivateDir,
    pub(super) nodes: PrivateDir,
    ca: Ca,
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory or a file in it is not usable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no state.
    #[error(
        "there is no culvert state in {}: start `culvert server` or make a token with `culvert \
         token create` first, or name the server's directory with --state-dir", .0.display()
    )]
    Absent(PathBuf),
    /// The CA is there, but damaged.
    #[error(
        "the CA in {} and {} cannot be used: restore both files from a backup, or move both away \
         to begin with a new CA, for which every agent must enrol anew",
        certificate.display(), key.display()
    )]
    CorruptCa {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The cause.
        #[source]
        cause: CaError,
    },
    /// One half of the CA is missing.
    #[error(
        "{} is missing, but the other half of the CA is there: restore it from a backup, or move \
         both halves away to begin with a new CA, for which every agent must enrol anew",
        .0.display()
    )]
    HalfCa(PathBuf),
    /// A new CA would end too early.
    #[error(
        "this machine's clock says {0}, which cannot be: a CA that is made now would end too early. Set the clock \
         (`timedatectl`, `chronyc waitsync`); a server that its unit starts again goes on by itself then"
    )]
    Clock(OffsetDateTime),
    /// A new CA cannot be made.
    #[error("cannot make a CA")]
    NewCa(#[source] CaError),
    /// A record cannot be read.
    #[error("{} cannot be read: repair it, or remove it and {way_out}", path.display())]
    CorruptRecord {
        /// The record's file.
        path: PathBuf,
        /// What replaces it.
        way_out: &'static str,
        /// The cause.
        #[source]
        cause: serde_json::Error,
    },
}

impl State {
    /// Opens the state in this directory; makes it, with a new CA, where there is none.
    pub fn create(path: &Path, now: OffsetDateTime) -> Result<Self, StateError> {
        let dir = PrivateDir::create(path)?;
        let lock = dir.lock()?;
        let ca = match load_ca(&dir)? {
            Some(ca) => ca,
            None => make_ca(&dir, now)?,
        };
        drop(lock);
        Self::with_ca(dir, ca)
    }

    /// Opens the state in this directory, which must be there.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let absent = || StateError::Absent(path.to_owned());
        let dir = PrivateDir::open(path)?.ok_or_else(absent)?;
        let ca = load_ca(&dir)?.ok_or_else(absent)?;
        Self::with_ca(dir, ca)
    }

    fn with_ca(dir: PrivateDir, ca: Ca) -> Result<Self, StateError> {
        Ok(Self {
            tokens: dir.subdirectory("tokens")?,
            nodes: dir.subdirectory("nodes")?,
            dir,
            ca,
        })
    }

    /// The CA that issues the server's and the agents' certificates.
    pub fn ca(&self) -> &Ca {
        &self.ca
    }
}

/// Reads one record; `None` where there is none.
pub(super) fn read_record<T: DeserializeOwned>(
    dir: &PrivateDir,
    name: &str,
    way_out: &'static str,
) -> Result<Option<T>, StateError> {
    let file = format!("{name}.json");
    let Some(content) = dir.read(&file)? else {
        return Ok(None);
    };
    serde_json::from_slice(&content)
        .map(Some)
        .map_err(|cause| StateError::CorruptRecord {
            path: dir.file(&file),
            way_out,
            cause,
        })
}

/// One of many records: warns where it cannot be read.
pub(super) fn readable<T>(record: Result<Option<T>, StateError>) -> Option<T> {
    record.unwrap_or_else(|error| {
        warn!(error = chain(&error), "left out a record");
        None
    })
}

/// Writes one record.
pub(super) fn write_record(
    dir: &PrivateDir,
    name: &str,
    record: &impl Serialize,
) -> Result<(), StateError> {
    let mut content = serde_json::to_vec_pretty(record).expect("records are plain data");
    content.push(b'\n');
    Ok(dir.write(&format!("{name}.json"), &content)?)
}

fn load_ca(dir: &PrivateDir) -> Result<Option<Ca>, StateError> {
    match (dir.read(CA_CERTIFICATE)?, dir.read(CA_KEY)?) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => match Ca::load(&certificate, &key) {
            Ok(ca) => Ok(Some(ca)),
            Err(cause) => Err(StateError::CorruptCa {
                certificate: dir.file(CA_CERTIFICATE),
                key: dir.file(CA_KEY),
                cause,
            }),
        },
        (None, Some(_)) => Err(StateError::HalfCa(dir.file(CA_CERTIFICATE))),
        (Some(_), None) => Err(StateError::HalfCa(dir.file(CA_KEY))),
    }
}

fn make_ca(dir: &PrivateDir, now: OffsetDateTime) -> Result<Ca, StateError> {
    if now < EARLIEST {
        return Err(StateError::Clock(now));
    }
    let ca = Ca::generate(now).map_err(StateError::NewCa)?;
    dir.write(CA_KEY, ca.key_pem().as_bytes())?;
    if let Err(error) = dir.write(CA_CERTIFICATE, ca.certificate_pem().as_bytes()) {
        // On a full disk, say: a key that nobody has used yet must not stand in the next try's way.
        let _ = dir.remove(CA_KEY);
        return Err(error.into());
    }
    info!(directory = %dir.path().display(), pin = %ca.pin(), "made a new CA");
    Ok(ca)
}

#[cfg(test)]
mod tests;
