//! How a server stands with its cluster, read when somebody scrapes.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

use time::OffsetDateTime;

use crate::observability::status::ClusterStatus;

/// Reads what `culvert status` shows as well.
pub type ReadCluster = Arc<dyn Fn() -> ClusterStatus + Send + Sync>;

/// Publishes it.
pub(super) struct Cluster(pub(super) ReadCluster);

impl Collector for Cluster {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let status = (self.0)();
        let confirmed = status
            .confirmed_at
            .map_or(0, OffsetDateTime::unix_timestamp);
        ConstGauge::new(confirmed).encode(encoder.encode_descriptor(
            "cluster_confirmed_timestamp",
            "When the API server last confirmed nodes and ports, since the epoch; 0 before.",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?)?;
        ConstGauge::new(i64::from(status.leading)).encode(encoder.encode_descriptor(
            "cluster_leading",
            "Whether this server writes to the cluster.",
            None,
            MetricType::Gauge,
        )?)?;
        ConstGauge::new(i64::from(status.servers)).encode(encoder.encode_descriptor(
            "cluster_servers",
            "Servers that run.",
            None,
            MetricType::Gauge,
        )?)?;
        ConstCounter::new(status.events_lost).encode(encoder.encode_descriptor(
            "cluster_events_lost",
            "Events that could not be written, or were too many.",
            None,
            MetricType::Counter,
        )?)?;
        let approvals = status.approvals;
        let mut decisions = encoder.encode_descriptor(
            "certificate_requests",
            "Decisions on certificate requests.",
            None,
            MetricType::Counter,
        )?;
        for (decision, count) in [
            ("approved", approvals.approved),
            ("denied", approvals.denied),
        ] {
            let labels = [("decision", decision)];
            ConstCounter::new(count).encode(decisions.encode_family(&labels)?)?;
        }
        let pending = i64::try_from(approvals.pending).unwrap_or(i64::MAX);
        ConstGauge::new(pending).encode(encoder.encode_descriptor(
            "certificate_requests_pending",
            "Certificate requests that are left pending, as they may become right later.",
            None,
            MetricType::Gauge,
        )?)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cluster")
    }
}
