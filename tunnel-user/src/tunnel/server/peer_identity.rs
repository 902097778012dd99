//! What a caller's certificate proves, and for how long.
//!
//! TLS looks at its end once, when hands are shaken; a session may last for years.

use std::time::Duration;

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::{
    model::{AgentIdentity, Snapshot},
    pki::{AgentProof, UnprovedIdentity, Validity, agent_identity},
    tunnel::{Refusal, registration::still_admitted},
};

/// How often the clock is asked: it may be set, and a machine may sleep.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// An agent that has proved who it is.
#[derive(Clone)]
pub(super) struct PeerIdentity {
    pub(super) identity: AgentIdentity,
    pub(super) validity: Validity,
}

impl PeerIdentity {
    pub(super) fn by(
        certificate: &CertificateDer<'_>,
        proof: AgentProof,
    ) -> Result<Self, UnprovedIdentity> {
        Ok(Self {
            identity: agent_identity(certificate, proof)?,
            validity: Validity::of(certificate).ok_or(UnprovedIdentity::Unreadable)?,
        })
    }

    /// Whether the snapshot, which has changed since, still admits the agent.
    pub(super) fn still_admitted(&self, snapshot: &Snapshot) -> Result<(), Refusal> {
        still_admitted(&self.identity, self.validity.issued, snapshot)
    }

    /// Resolves when the certificate has been over for so long.
    pub(super) async fn expired_for(&self, time: Duration) {
        let end = self
            .validity
            .expires
            .saturating_add(time.try_into().unwrap_or_default());
        while let Some(left) = left(end, OffsetDateTime::now_utc()) {
            sleep(left.min(LOOK_AGAIN)).await;
        }
    }
}

fn left(until: OffsetDateTime, now: OffsetDateTime) -> Option<Duration> {
    let left = (until - now).try_into().ok();
    left.filter(|left: &Duration| !left.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_ends_at_the_certificates_end() {
        let start = OffsetDateTime::UNIX_EPOCH;
        let until = start + Duration::from_mins(1);
        assert_eq!(left(until, start), Some(Duration::from_mins(1)));
        let late = start + Duration::from_millis(59_999);
        assert_eq!(left(until, late), Some(Duration::from_millis(1)));
        assert_eq!(left(until, until), None);
        assert_eq!(left(until, until + Duration::from_secs(1)), None);
    }
}
