//! What a caller's certificate proves, and for how long.
//!
//! TLS looks at its end once, when hands are shaken; a session may last for years.

use std::time::Duration;

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::{
    model::{AgentIdentity, NodeName, Snapshot},
    pki::{AgentProof, UnprovedIdentity, Validity, agent_identity, relay_machine},
    tunnel::{Refusal, registration::still_admitted},
};

/// How often the clock is asked: it may be set, and a machine may sleep.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// What a caller has proved.
#[derive(Clone)]
pub(super) enum Proved {
    /// To be the agent of a node.
    Agent(PeerIdentity),
    /// To be a server, which may have its clients' connections carried.
    Relay(RelayIdentity),
}

/// A server that relays.
#[derive(Clone)]
pub(super) struct RelayIdentity {
    /// Where it runs.
    pub(super) machine: NodeName,
    pub(super) validity: Validity,
}

/// An agent that has proved who it is.
#[derive(Clone)]
pub(super) struct PeerIdentity {
    pub(super) identity: AgentIdentity,
    pub(super) validity: Validity,
}

impl Proved {
    pub(super) fn by(
        certificate: &CertificateDer<'_>,
        proof: AgentProof,
    ) -> Result<Self, UnprovedIdentity> {
        let validity = Validity::of(certificate).ok_or(UnprovedIdentity::Unreadable)?;
        // A server with a CA of its own has no others beside it.
        if proof == AgentProof::ClusterSubject
            && let Some(machine) = relay_machine(certificate)?
        {
            return Ok(Self::Relay(RelayIdentity { machine, validity }));
        }
        let identity = agent_identity(certificate, proof)?;
        Ok(Self::Agent(PeerIdentity { identity, validity }))
    }

    /// The node of the agent, or of the server.
    pub(super) fn node(&self) -> &NodeName {
        match self {
            Self::Agent(agent) => &agent.identity.node,
            Self::Relay(relay) => &relay.machine,
        }
    }

    /// Resolves when the certificate has been over for so long.
    pub(super) async fn expired_for(&self, time: Duration) {
        let validity = match self {
            Self::Agent(agent) => agent.validity,
            Self::Relay(relay) => relay.validity,
        };
        let end = validity
            .expires
            .saturating_add(time.try_into().unwrap_or_default());
        while let Some(left) = left(end, OffsetDateTime::now_utc()) {
            sleep(left.min(LOOK_AGAIN)).await;
        }
    }
}

impl PeerIdentity {
    /// Whether the snapshot, which has changed since, still admits the agent.
    pub(super) fn still_admitted(&self, snapshot: &Snapshot) -> Result<(), Refusal> {
        still_admitted(&self.identity, self.validity.issued, snapshot)
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
