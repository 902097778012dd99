//! Whether an agent that starts can use what it has stored, or has to enrol.

use time::OffsetDateTime;

use super::identity::{StoredIdentity, Unusable};
use crate::{model::NodeName, pki::CaPin, standalone::JoinToken};

/// What to do.
#[derive(Debug)]
pub(super) enum Plan {
    /// The stored identity serves.
    UseStored(StoredIdentity),
    /// Enrol with the token. Where that fails, the identity that is still good serves on.
    Enrol {
        token: JoinToken,
        pin: CaPin,
        fallback: Option<StoredIdentity>,
    },
}

/// What the command line asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) node: &'a NodeName,
    /// The token, or why the one that was named cannot be read: which matters only without an
    /// identity, for whoever is enrolled may have deleted the token's file.
    pub(super) token: Option<Result<&'a JoinToken, &'a str>>,
    pub(super) pin: Option<CaPin>,
}

/// Why the agent has no identity.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoIdentity {
    #[error(
        "this agent is not enrolled: run `culvert token create --node {0}` on the server, and the \
         command that it prints here"
    )]
    NotEnrolled(NodeName),
    #[error(
        "{reason}: run `culvert token create --node {node}` on the server, and the command that it \
         prints here"
    )]
    Unusable { reason: String, node: NodeName },
    #[error(
        "the stored certificate expired at {expired}, and this machine's clock says {now}: if the clock is right, run \
         `culvert token create --node {node}` on the server, and the command that it prints here; if it is not, the \
         agent goes on by itself once it is set"
    )]
    Late {
        expired: OffsetDateTime,
        now: OffsetDateTime,
        node: NodeName,
    },
    #[error(
        "--token needs --ca-hash, by which the agent knows the right server: give both, as `culvert \
         token create` prints them"
    )]
    NoPin,
    #[error("{0}")]
    NoToken(String),
}

/// Decides.
pub(super) fn plan(
    stored: Option<Result<StoredIdentity, Unusable>>,
    asked: Asked<'_>,
    now: OffsetDateTime,
) -> Result<Plan, NoIdentity> {
    let Some(stored) = stored else {
        return enrol(asked, None, || NoIdentity::NotEnrolled(asked.node.clone()));
    };
    match check(stored, asked, now) {
        Ok(stored) => match asked.token {
            Some(Ok(token)) if token.id().as_str() != stored.identity.key.as_str() => {
                let nothing = || NoIdentity::NoPin;
                enrol(asked, Some(stored), nothing)
            }
            Some(_) | None => Ok(Plan::UseStored(stored)),
        },
        Err(unusable) => enrol(asked, None, || unusable),
    }
}

/// The stored identity if it is the one asked for, else why it is not.
fn check(
    stored: Result<StoredIdentity, Unusable>,
    asked: Asked<'_>,
    now: OffsetDateTime,
) -> Result<StoredIdentity, NoIdentity> {
    let Asked { node, pin, .. } = asked;
    let unusable = |reason| NoIdentity::Unusable {
        reason,
        node: node.clone(),
    };
    let stored = stored
        .map_err(|cause| unusable(format!("the stored credential cannot be used ({cause})")))?;
    if stored.identity.node != *node {
        let named = &stored.identity.node;
        return Err(unusable(format!(
            "the stored certificate is for node {named}, not for {node}"
        )));
    }
    if pin.is_some() && CaPin::of(&stored.ca) != pin {
        return Err(unusable(
            "the stored certificate is of another CA than --ca-hash names".to_owned(),
        ));
    }
    let validity = stored.validity;
    if validity.has_ended(now) {
        return Err(NoIdentity::Late {
            expired: validity.expires,
            now,
            node: node.clone(),
        });
    }
    Ok(stored)
}

fn enrol(
    asked: Asked<'_>,
    fallback: Option<StoredIdentity>,
    without_token: impl FnOnce() -> NoIdentity,
) -> Result<Plan, NoIdentity> {
    let token = match asked.token {
        Some(Ok(token)) => token.clone(),
        Some(Err(reason)) => return Err(NoIdentity::NoToken(reason.to_owned())),
        None => return Err(without_token()),
    };
    let pin = asked.pin.ok_or(NoIdentity::NoPin)?;
    Ok(Plan::Enrol {
        token,
        pin,
        fallback,
    })
}

#[cfg(test)]
mod tests;
