//! How long dials take, and why they fail.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::labels::{ByCause, DialFailure};

/// Upper bounds of the buckets, in seconds: from a kubelet in the same room to the default dial
/// timeout and beyond.
const BUCKETS: [f64; 11] = [
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0,
];

/// Counts dials.
#[derive(Clone, Debug)]
pub struct Dials {
    duration: Histogram,
    failures: Family<ByCause, Counter>,
}

impl Dials {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let dials = Self {
            duration: Histogram::new(BUCKETS),
            failures: Family::default(),
        };
        registry.register_with_unit(
            "dial_duration",
            "Time from the dial to the open connection, of dials that succeeded",
            Unit::Seconds,
            dials.duration.clone(),
        );
        registry.register("dial_failures", "Dials that failed", dials.failures.clone());
        dials
    }

    /// Shows the time under another name as well; its unit is added to it.
    pub(super) fn show_duration_as(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register_with_unit(name, help, Unit::Seconds, self.duration.clone());
    }

    /// Counts a dial that succeeded.
    pub fn succeeded(&self, took: Duration) {
        self.duration.observe(took.as_secs_f64());
    }

    /// Counts a dial that failed.
    pub fn failed(&self, cause: DialFailure) {
        self.failures.get_or_create(&ByCause { cause }).inc();
    }
}
