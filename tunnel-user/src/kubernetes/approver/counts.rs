//! What the approver counts.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Certificate requests decided by this server. Clones count into the same numbers.
#[derive(Clone, Debug, Default)]
pub struct ApprovalCounts {
    /// Approved since the start.
    pub approved: Counter,
    /// Denied since the start.
    pub denied: Counter,
    /// Of servers and agents, but left undecided at present.
    pub pending: Gauge,
}

impl ApprovalCounts {
    /// Publishes the numbers.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "certificate_requests_approved",
            "Certificate requests approved",
            self.approved.clone(),
        );
        registry.register(
            "certificate_requests_denied",
            "Certificate requests denied",
            self.denied.clone(),
        );
        registry.register(
            "certificate_requests_pending",
            "Certificate requests of servers and agents left undecided",
            self.pending.clone(),
        );
    }

    pub(super) fn pending(&self, count: usize) {
        self.pending.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
