//! What status and metrics show of the cluster.

use time::OffsetDateTime;
use tokio::sync::watch;

use crate::{
    kubernetes::{ApprovalCounts, events::Events, source::SourceHealth},
    observability::status::{ApprovalStatus, ClusterStatus},
};

/// Reads how it stands.
pub(super) struct ClusterView {
    pub(super) health: watch::Receiver<SourceHealth>,
    pub(super) leading: watch::Receiver<bool>,
    pub(super) leader: watch::Receiver<Option<String>>,
    pub(super) server_count: watch::Receiver<u32>,
    pub(super) events: Events,
    /// `None` where somebody else approves.
    pub(super) approvals: Option<ApprovalCounts>,
}

impl ClusterView {
    pub(super) fn status(&self) -> ClusterStatus {
        let health = self.health.borrow();
        let approvals = self.approvals.as_ref().map(|counts| ApprovalStatus {
            enabled: true,
            approved: counts.approved.get(),
            denied: counts.denied.get(),
            pending: counts.pending.get().try_into().unwrap_or(0),
        });
        ClusterStatus {
            confirmed_at: health.confirmed_at(OffsetDateTime::now_utc()),
            trouble: health.trouble(),
            leader: self.leader.borrow().clone(),
            leading: *self.leading.borrow(),
            servers: *self.server_count.borrow(),
            events_lost: self.events.lost(),
            approvals: approvals.unwrap_or_default(),
        }
    }
}
