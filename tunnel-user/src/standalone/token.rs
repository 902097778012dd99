//! A token: the right to enrol one node, once, within a time.
//!
//! It is bound to the first public key that uses it. So an agent whose answer was lost may ask
//! again with the same key, and whoever finds the token later gets nothing.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use time::{OffsetDateTime, serde::rfc3339};

use super::Refused;
use crate::{
    model::{GatePolicy, NodeName},
    pki::SubjectKey,
};

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

/// What the server keeps of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRecord {
    /// The node that it enrols.
    pub node: NodeName,
    /// The addresses that the node gets; none means those that the agent proposes.
    pub addresses: Vec<IpAddr>,
    /// The node's own policy for a closed gate.
    pub gate_policy: Option<GatePolicy>,
    /// When it was made.
    #[serde(with = "rfc3339")]
    pub created: OffsetDateTime,
    /// When it ends.
    #[serde(with = "rfc3339")]
    pub expires: OffsetDateTime,
    /// The key that used it.
    pub used_by: Option<SubjectKey>,
    /// Whether it was revoked.
    pub revoked: bool,
    secret_sha256: String,
}

/// What can be done with a token now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenStatus {
    /// It can enrol its node.
    Open,
    /// It has enrolled its node.
    Used,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

/// How a token is used by a caller that may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenUse {
    First,
    Again,
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

    fn secret_sha256(&self) -> String {
        hex::encode(Sha256::digest(self.secret.as_bytes()))
    }
}

impl TokenRecord {
    /// The record of a new token.
    pub(super) fn new(
        token: &JoinToken,
        node: NodeName,
        addresses: Vec<IpAddr>,
        gate_policy: Option<GatePolicy>,
        (created, expires): (OffsetDateTime, OffsetDateTime),
    ) -> Self {
        Self {
            node,
            addresses,
            gate_policy,
            created,
            expires,
            used_by: None,
            revoked: false,
            secret_sha256: token.secret_sha256(),
        }
    }

    /// What can be done with it now.
    pub fn status(&self, now: OffsetDateTime) -> TokenStatus {
        match self {
            Self { revoked: true, .. } => TokenStatus::Revoked,
            Self {
                used_by: Some(_), ..
            } => TokenStatus::Used,
            _ if now >= self.expires => TokenStatus::Expired,
            _ => TokenStatus::Open,
        }
    }

    /// Whether this is the token's secret.
    pub(super) fn knows(&self, token: &JoinToken) -> bool {
        let (ours, theirs) = (&self.secret_sha256, token.secret_sha256());
        ours.as_bytes().ct_eq(theirs.as_bytes()).into()
    }

    /// Whether the holder of `key`, who knows the secret, may use the token now.
    pub(super) fn admit(&self, key: &SubjectKey, now: OffsetDateTime) -> Result<TokenUse, Refused> {
        if self.revoked {
            return Err(Refused::Revoked);
        }
        let again = match &self.used_by {
            Some(user) if user != key => return Err(Refused::Used),
            user => user.is_some(),
        };
        if now >= self.expires {
            return Err(Refused::Expired(self.expires));
        }
        Ok(if again {
            TokenUse::Again
        } else {
            TokenUse::First
        })
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

impl fmt::Display for TokenStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Open => "open",
            Self::Used => "used",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        })
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
