//! Why clients of the HTTPS ports were not carried.

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::labels::{ByReason, HttpsRefusal};

/// Counts clients that were refused.
#[derive(Clone, Debug, Default)]
pub struct HttpsRefusals(Family<ByReason, Counter>);

impl HttpsRefusals {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let refusals = Self::default();
        registry.register(
            "https_refusals",
            "Clients of the HTTPS ports that were not carried",
            refusals.0.clone(),
        );
        refusals
    }

    /// Counts one.
    pub fn count(&self, reason: HttpsRefusal) {
        self.0.get_or_create(&ByReason { reason }).inc();
    }
}
