//! The key of a request that is under way: a lost answer is asked for again with it, also after a
//! restart.

use rcgen::KeyPair;

use super::{PrivateDir, new_key};

/// The key in that file, or a new one, on disk before anybody hears of it.
pub(crate) fn pending_key(dir: &PrivateDir, file: &str) -> anyhow::Result<KeyPair> {
    let stored = dir.read(file)?;
    let key = stored
        .and_then(|pem| String::from_utf8(pem).ok())
        .and_then(|pem| KeyPair::from_pem(&pem).ok());
    if let Some(key) = key {
        return Ok(key);
    }
    let key = new_key()?;
    dir.write(file, key.serialize_pem().as_bytes())?;
    Ok(key)
}
