//! What `culvert status --agent` shows, and what the agent's metrics follow.

use std::sync::{Arc, OnceLock};

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::backing::Backing;
use crate::{
    app::certificates::certificate_status,
    model::{AgentIdentity, NodeName},
    observability::{
        admin::MakeStatus,
        metrics::AgentMetrics,
        readiness::{Condition, Readiness},
        status::{NodeStatus, Role, SessionStatus, StatusReport},
    },
    pki::{AGENT_SUBJECT, Validity},
    tunnel::agent::{LinkInfo, LinkState, Servers},
};

/// Makes reports.
#[derive(Clone)]
pub(super) struct Reporter {
    pub(super) started_at: OffsetDateTime,
    pub(super) established: Established,
    pub(super) servers: Servers,
    pub(super) readiness: Readiness,
}

/// The agent's identity, once it has one.
#[derive(Clone, Default)]
pub(super) struct Established(Arc<OnceLock<Identity>>);

struct Identity {
    proved: watch::Receiver<AgentIdentity>,
    validities: watch::Receiver<Validity>,
    ca: Option<Validity>,
}

impl Established {
    /// Shows the identity from now on.
    pub(super) fn set(&self, backing: &Backing, metrics: &AgentMetrics) {
        let ca = backing.authority;
        if let Some(ca) = ca {
            metrics.certificates.set_expiry("ca", ca.expires);
        }
        self.0.get_or_init(|| Identity {
            proved: backing.identity.clone(),
            validities: backing.validities.clone(),
            ca,
        });
    }
}

impl Reporter {
    pub(super) fn into_fn(self) -> MakeStatus {
        Arc::new(move || {
            let report = self.report();
            Box::pin(async { report })
        })
    }

    fn report(&self) -> StatusReport {
        let now = OffsetDateTime::now_utc();
        let mut report = StatusReport::new(Role::Agent, self.started_at, now);
        report.conditions = self.readiness.report().into();
        if let Some(identity) = self.established.0.get() {
            self.add(&mut report, identity);
        }
        report
    }

    fn add(&self, report: &mut StatusReport, identity: &Identity) {
        let Identity {
            proved,
            validities,
            ca,
        } = identity;
        let proved = proved.borrow();
        report.nodes = vec![NodeStatus {
            name: proved.node.clone(),
            addresses: proved.addresses.clone(),
            connected: self.servers.any_up(),
            closed_gate: None,
        }];
        let links = self.servers.reports().into_iter();
        report.sessions = links
            .filter_map(|link| match link.state {
                LinkState::Up(info) => Some(session(&proved.node, &info)),
                LinkState::Down(_) | LinkState::Duplicate { .. } => None,
            })
            .collect();
        let agent = certificate_status(
            "agent",
            Some(AGENT_SUBJECT.to_string()),
            *validities.borrow(),
        );
        let ca = ca.map(|ca| certificate_status("ca", None, ca));
        report.certificates = ca.into_iter().chain([agent]).collect();
    }
}

fn session(node: &NodeName, link: &LinkInfo) -> SessionStatus {
    let (bytes_to_client, bytes_to_target) = link.bytes();
    SessionStatus {
        node: node.clone(),
        remote: link.remote,
        connected_at: link.since.into(),
        open_connections: link.open_connections(),
        bytes_to_target,
        bytes_to_client,
        peer_version: None,
    }
}

/// Keeps readiness and the metric of sessions true.
pub(super) async fn follow_sessions(
    servers: Servers,
    connected: Condition,
    metrics: AgentMetrics,
    shutdown: CancellationToken,
) {
    let mut changes = servers.changes();
    loop {
        changes.borrow_and_update();
        let links = servers.reports();
        let up = links
            .iter()
            .filter(|link| matches!(link.state, LinkState::Up(_)))
            .count();
        metrics.sessions.set(i64::try_from(up).unwrap_or(i64::MAX));
        match up {
            0 => connected.not_ready(reason(&links)),
            _ => connected.ready(),
        }
        tokio::select! {
            open = changes.changed() => if open.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}

fn reason(links: &[crate::tunnel::agent::LinkReport]) -> String {
    let of_link = |link: &crate::tunnel::agent::LinkReport| match &link.state {
        LinkState::Down(Some(reason)) => Some(format!("{}: {reason}", link.server)),
        LinkState::Down(None) | LinkState::Up(_) | LinkState::Duplicate { .. } => None,
    };
    let reasons: Vec<_> = links.iter().filter_map(of_link).collect();
    if reasons.is_empty() {
        return "no session yet".to_owned();
    }
    reasons.join("; ")
}
