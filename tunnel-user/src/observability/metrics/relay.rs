//! How many connections servers carry for each other.

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::labels::{ByRelaySide, RelaySide};

/// Counts relayed connections. Direct ones are all others.
#[derive(Clone, Debug)]
pub struct RelayMetrics {
    /// Of this server's clients, carried by another server.
    pub asked: Counter,
    /// Of other servers' clients, carried by this one.
    pub answered: Counter,
}

impl RelayMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let relayed = Family::<ByRelaySide, Counter>::default();
        registry.register(
            "relayed_connections",
            "Connections that went through a session of another server: of this server's clients (asked), or of another's (answered)",
            relayed.clone(),
        );
        let of = |side| relayed.get_or_create_owned(&ByRelaySide { side });
        Self {
            asked: of(RelaySide::Asked),
            answered: of(RelaySide::Answered),
        }
    }
}
