//! The kernel programs' counters, read when somebody scrapes.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// Reads the counters: the name of each event, and how often it happened.
pub type ReadCounters = Box<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>;

/// Publishes the counters as `redirect_events_total{event="..."}`.
pub(super) struct RedirectEvents(pub(super) ReadCounters);

/// How original destinations reach the server, and how the network namespaces of clients fare.
#[derive(Clone, Debug, Default)]
pub struct SchemeReport {
    /// The scheme, `range` or `tuple`, for each kind of clients: `host`, `pods`, `ipv6`.
    pub schemes: Vec<(&'static str, &'static str)>,
    /// How many network namespaces are served by `range`, by `tuple`, or are `unreached`.
    pub namespaces: Vec<(&'static str, u64)>,
}

/// Reads the report.
pub type ReadSchemes = Box<dyn Fn() -> SchemeReport + Send + Sync>;

/// Publishes the report as `redirect_scheme{clients,scheme}` and `client_namespaces{state}`.
pub(super) struct RedirectSchemes(pub(super) ReadSchemes);

impl Collector for RedirectSchemes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let report = (self.0)();
        let mut family = encoder.encode_descriptor(
            "redirect_scheme",
            "How original destinations of these clients reach the server: always 1.",
            None,
            MetricType::Gauge,
        )?;
        for (clients, scheme) in report.schemes {
            let labels = [("clients", clients), ("scheme", scheme)];
            ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
        }
        let mut family = encoder.encode_descriptor(
            "client_namespaces",
            "Other network namespaces with clients, by how their connects fare.",
            None,
            MetricType::Gauge,
        )?;
        for (state, count) in report.namespaces {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            ConstGauge::new(count).encode(family.encode_family(&[("state", state)])?)?;
        }
        Ok(())
    }
}

impl fmt::Debug for RedirectSchemes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedirectSchemes")
    }
}

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
