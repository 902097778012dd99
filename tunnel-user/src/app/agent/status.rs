//! What `culvert status --agent` shows, and what the agent's metrics follow.

use std::sync::Arc;

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    model::AgentIdentity,
    observability::{
        admin::MakeStatus,
        metrics::AgentMetrics,
        readiness::{Condition, Readiness},
        status::{CertificateStatus, NodeStatus, Role, SessionStatus, StatusReport},
    },
    pki::Validity,
    tunnel::agent::{LinkInfo, LinkState, Servers},
};

/// Makes reports.
#[derive(Clone)]
pub(super) struct Reporter {
    pub(super) started_at: OffsetDateTime,
    pub(super) identity: AgentIdentity,
    pub(super) servers: Servers,
    pub(super) readiness: Readiness,
    pub(super) metrics: AgentMetrics,
    pub(super) validities: watch::Receiver<Validity>,
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
        report.nodes = vec![NodeStatus {
            name: self.identity.node.clone(),
            addresses: self.identity.addresses.clone(),
            connected: self.servers.any_up(),
            closed_gate: None,
        }];
        let links = self.servers.reports().into_iter();
        report.sessions = links
            .filter_map(|link| match link.state {
                LinkState::Up(info) => Some(self.session(&info)),
                LinkState::Down(_) | LinkState::Duplicate { .. } => None,
            })
            .collect();
        let validity = *self.validities.borrow();
        report.certificates = vec![CertificateStatus {
            name: "agent".to_owned(),
            valid_from: validity.issued,
            expires_at: validity.expires,
        }];
        report
    }

    fn session(&self, link: &LinkInfo) -> SessionStatus {
        let (bytes_to_client, bytes_to_target) = link.bytes();
        SessionStatus {
            node: self.identity.node.clone(),
            remote: link.remote,
            connected_at: link.since.into(),
            open_connections: self.metrics.connections.open_now(),
            bytes_to_target,
            bytes_to_client,
            peer_version: None,
        }
    }
}

/// Keeps the metric of the certificate's expiry true.
pub(super) async fn follow_expiry(
    mut validities: watch::Receiver<Validity>,
    metrics: AgentMetrics,
    shutdown: CancellationToken,
) {
    loop {
        let validity = *validities.borrow_and_update();
        metrics.certificates.set_expiry("agent", validity.expires);
        tokio::select! {
            changed = validities.changed() => if changed.is_err() {
                return shutdown.cancelled().await;
            },
            () = shutdown.cancelled() => return,
        }
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
