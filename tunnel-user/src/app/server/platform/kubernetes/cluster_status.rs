//! What status and metrics show of the cluster.

use time::OffsetDateTime;
use tokio::sync::watch;

use crate::{
    kubernetes::{
        ApprovalCounts, Publication, PublicationReader, Published, events::Events,
        source::SourceHealth,
    },
    observability::status::{ApprovalStatus, ClusterStatus, PublishedKind, PublishedStatus},
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
    /// `None` where nobody is to dial nodes by name.
    pub(super) published: Option<PublicationReader>,
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
            published: self.published.iter().flat_map(published).collect(),
        }
    }
}

fn published(reader: &PublicationReader) -> [PublishedStatus; 2] {
    let limit = Some(to_u64(Publication::NAMES_LIMIT));
    [
        status_of(PublishedKind::Names, &reader.names.borrow(), limit),
        status_of(PublishedKind::ServicePorts, &reader.ports.borrow(), None),
    ]
}

fn status_of(kind: PublishedKind, published: &Published, limit: Option<u64>) -> PublishedStatus {
    PublishedStatus {
        kind,
        object: published.object.to_string(),
        entries: to_u64(published.entries),
        bytes: limit.map(|_| to_u64(published.bytes)),
        limit,
        written_at: published.written_at,
        writes: published.writes,
        troubles: published.troubles.clone(),
    }
}

fn to_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
