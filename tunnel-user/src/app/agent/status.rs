//! What `culvert status --agent` shows, and what the agent's metrics follow.

use std::sync::{Arc, OnceLock};

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::platform::Platform;
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
    tunnel::agent::{ServerState, Servers, SessionInfo},
    wait::changed_before,
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
    pub(super) fn set(&self, platform: &Platform, metrics: &AgentMetrics) {
        let ca = platform.authority;
        if let Some(ca) = ca {
            metrics.certificates.set_expiry("ca", ca.expires);
        }
        self.0.get_or_init(|| Identity {
            proved: platform.identity.clone(),
            validities: platform.validities.clone(),
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
        let reports = self.servers.reports().into_iter();
        report.sessions = reports
            .filter_map(|report| match report.state {
                ServerState::Up(info) => Some(session(&proved.node, &info)),
                ServerState::Down(_) | ServerState::Duplicate { .. } => None,
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

fn session(node: &NodeName, info: &SessionInfo) -> SessionStatus {
    let (bytes_to_client, bytes_to_target) = info.bytes();
    SessionStatus {
        node: node.clone(),
        remote: info.remote,
        connected_at: info.since.into(),
        open_connections: info.open_connections(),
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
        let reports = servers.reports();
        let up = reports
            .iter()
            .filter(|report| matches!(report.state, ServerState::Up(_)))
            .count();
        metrics.sessions.set(i64::try_from(up).unwrap_or(i64::MAX));
        match up {
            0 => connected.not_ready(reason(&reports)),
            _ => connected.ready(),
        }
        if !changed_before(&mut changes, &shutdown).await {
            return;
        }
    }
}

fn reason(reports: &[crate::tunnel::agent::ServerReport]) -> String {
    let of_server = |report: &crate::tunnel::agent::ServerReport| match &report.state {
        ServerState::Down(Some(reason)) => Some(format!("{}: {reason}", report.server)),
        ServerState::Down(None) | ServerState::Up(_) | ServerState::Duplicate { .. } => None,
    };
    let reasons: Vec<_> = reports.iter().filter_map(of_server).collect();
    if reasons.is_empty() {
        return "no session yet".to_owned();
    }
    reasons.join("; ")
}
