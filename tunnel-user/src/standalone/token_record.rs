//! What the server keeps of a token: the right to enrol one node, once, within a time.
//!
//! It is bound to the first public key that uses it. So an agent whose answer was lost may ask
//! again with the same key, and whoever finds the token later gets nothing.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use time::{OffsetDateTime, serde::rfc3339};

use super::{JoinToken, Refused};
use crate::{
    model::{GatePolicy, NodeName},
    pki::SubjectKey,
};

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

#[cfg(test)]
mod tests;
