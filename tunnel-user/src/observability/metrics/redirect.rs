//! The kernel programs' counters, read when somebody scrapes.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
};

/// Reads the counters: the name of each event, and how often it happened.
pub type ReadCounters = Box<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>;

/// Publishes the counters as `redirect_events_total{event="..."}`.
pub(super) struct RedirectEvents(pub(super) ReadCounters);

impl Collector for RedirectEvents {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "redirect_events",
            "What the kernel programs decided.",
            None,
            MetricType::Counter,
        )?;
        for (event, count) in (self.0)() {
            let labels = [("event", event)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl fmt::Debug for RedirectEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedirectEvents")
    }
}
