//! What the approver counts.

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

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
    pub(super) fn pending(&self, count: usize) {
        self.pending.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
