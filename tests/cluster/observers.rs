//! What Prometheus has seen.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use culvert_tests::cluster::{Cluster, PROMETHEUS_URL};
use serde_json::Value;

/// By node, whether the last scrape of `job` went well.
pub(crate) fn up(cluster: &Cluster, job: &str) -> Result<BTreeMap<String, bool>> {
    up_at(cluster, PROMETHEUS_URL, job)
}

/// The same of a Prometheus that answers elsewhere.
pub(crate) fn up_at(cluster: &Cluster, url: &str, job: &str) -> Result<BTreeMap<String, bool>> {
    let query = format!("query=up{{job=\"{job}\"}}");
    let curl = cluster.control_plane().launch("curl");
    let mut curl = curl
        .words("--silent --show-error --fail --get --data-urlencode")
        .arg(query)
        .arg(format!("{url}/api/v1/query"))
        .start()?;
    let said = curl.succeed(Duration::from_secs(10))?;
    let answer: Value = serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))?;
    let results = answer["data"]["result"].as_array().context("no result")?;
    let one = |result: &Value| {
        let node = result["metric"]["node"].as_str()?.to_owned();
        Some((node, result["value"][1] == "1"))
    };
    Ok(results.iter().filter_map(one).collect())
}
