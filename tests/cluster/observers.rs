//! What Prometheus has seen.

use std::collections::BTreeMap;

use anyhow::Result;
use culvert_tests::cluster::{Cluster, PROMETHEUS_URL};

/// By node, whether the last scrape of `job` went well.
pub(crate) fn up(cluster: &Cluster, job: &str) -> Result<BTreeMap<String, bool>> {
    up_at(cluster, PROMETHEUS_URL, job)
}

/// The same of a Prometheus that answers elsewhere.
pub(crate) fn up_at(cluster: &Cluster, url: &str, job: &str) -> Result<BTreeMap<String, bool>> {
    cluster.scraped(url, job)
}
