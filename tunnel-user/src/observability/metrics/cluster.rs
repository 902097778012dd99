//! How a server stands with its cluster, read when somebody scrapes.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

use time::OffsetDateTime;

use super::to_gauge;
use crate::observability::status::{ClusterStatus, PublishedStatus};

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
        let pending = to_gauge(approvals.pending);
        ConstGauge::new(pending).encode(encoder.encode_descriptor(
            "certificate_requests_pending",
            "Certificate requests that are left pending, as they may become right later.",
            None,
            MetricType::Gauge,
        )?)?;
        encode_published(&mut encoder, &status.published)
    }
}

/// `None` where it does not apply.
type ReadGauge = fn(&PublishedStatus) -> Option<i64>;

/// What the leader writes for clients that dial nodes by name; nothing where no server does.
fn encode_published(
    encoder: &mut DescriptorEncoder<'_>,
    published: &[PublishedStatus],
) -> Result<(), fmt::Error> {
    let gauges: [(_, _, _, ReadGauge); 5] = [
        (
            "published_entries",
            "Records of names, ports of the Service; 0 while this server does not lead.",
            None,
            |published| Some(to_gauge(published.entries)),
        ),
        (
            "published_troubles",
            "What keeps them from being as they should be.",
            None,
            |published| i64::try_from(published.troubles.len()).ok(),
        ),
        (
            "published_last_write_timestamp",
            "When this server last wrote them, since the epoch; 0 before.",
            Some(Unit::Seconds),
            |published| {
                Some(
                    published
                        .written_at
                        .map_or(0, OffsetDateTime::unix_timestamp),
                )
            },
        ),
        (
            "published_size",
            "Size of the ConfigMap.",
            Some(Unit::Bytes),
            |published| published.bytes.map(to_gauge),
        ),
        (
            "published_limit",
            "Size that the ConfigMap may have.",
            Some(Unit::Bytes),
            |published| published.limit.map(to_gauge),
        ),
    ];
    if published.is_empty() {
        return Ok(());
    }
    for (name, help, unit, read) in gauges {
        let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for one in published {
            if let Some(value) = read(one) {
                let labels = [("kind", one.kind.as_str())];
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
    }
    let help = "Writes by this server.";
    let mut writes =
        encoder.encode_descriptor("published_writes", help, None, MetricType::Counter)?;
    for one in published {
        let labels = [("kind", one.kind.as_str())];
        ConstCounter::new(one.writes).encode(writes.encode_family(&labels)?)?;
    }
    Ok(())
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cluster")
    }
}
