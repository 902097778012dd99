//! A token as its holder has it: a public id and a secret.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// RFC 4648 base32 in lower case: nothing that a shell, a YAML file or a reader could mistake.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const ID_LEN: usize = 10;
/// 26 times 5 bits: more than the 128 that cannot be guessed.
const SECRET_LEN: usize = 26;

/// The public half of a token, by which people and files call it. It also names the enrolment
/// that the token makes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId(Arc<str>);

/// A token as its holder has it: `<id>.<secret>`. Only [`reveal`](Self::reveal) shows the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    id: TokenId,
    secret: Arc<str>,
}

/// Why a string is not a [`JoinToken`]. It does not repeat the string, which may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a token: expected ID.SECRET, as `culvert token create` prints it after --token")]
pub struct InvalidToken;

/// Why a string is not a [`TokenId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a token id: expected the part of a token before the dot, as `culvert token list` shows it"
)]
pub struct InvalidTokenId;

impl JoinToken {
    /// A new random token.
    pub(super) fn generate() -> Self {
        Self {
            id: TokenId(random_text::<ID_LEN>().into()),
            secret: random_text::<SECRET_LEN>().into(),
        }
    }

    /// The public half.
    pub fn id(&self) -> &TokenId {
        &self.id
    }

    /// The whole token, for the one who is to use it.
    pub fn reveal(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }

    /// What is kept of the secret.
    pub(super) fn secret_sha256(&self) -> String {
        hex::encode(Sha256::digest(self.secret.as_bytes()))
    }
}

impl TokenId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenId {
    type Err = InvalidTokenId;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        let valid = (6..=32).contains(&id.len()) && is_token_text(id);
        valid.then(|| Self(id.into())).ok_or(InvalidTokenId)
    }
}

impl TryFrom<String> for TokenId {
    type Error = InvalidTokenId;

    fn try_from(id: String) -> Result<Self, Self::Error> {
        id.parse()
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (id, secret) = text.trim().split_once('.').ok_or(InvalidToken)?;
        if secret.is_empty() || secret.len() > 128 || !is_token_text(secret) {
            return Err(InvalidToken);
        }
        Ok(Self {
            id: id.parse().map_err(|InvalidTokenId| InvalidToken)?,
            secret: secret.into(),
        })
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}.***)", self.id)
    }
}

fn is_token_text(text: &str) -> bool {
    text.bytes()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

fn random_text<const LEN: usize>() -> String {
    rand::random::<[u8; LEN]>()
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
        .collect()
}

#[cfg(test)]
mod tests;
