//! What Prometheus has seen.

use std::collections::BTreeMap;
use std::mem;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use culvert_tests::cluster::{Cluster, PROMETHEUS_URL, wait_until};
use serde_json::Value;

use crate::stage::PATIENCE;

/// Those that are scraped on every node.
pub(crate) const JOBS: [&str; 2] = ["kubelet", "cadvisor"];

/// By node, whether the last scrape of `job` went well.
pub(crate) fn up(cluster: &Cluster, job: &str) -> Result<BTreeMap<String, bool>> {
    up_at(cluster, PROMETHEUS_URL, job)
}

/// The same of a Prometheus that answers elsewhere.
pub(crate) fn up_at(cluster: &Cluster, url: &str, job: &str) -> Result<BTreeMap<String, bool>> {
    cluster.scraped(url, job)
}

/// Waits until the last scrape of every job of every node went well.
pub(crate) fn until_every_node_is_scraped(
    cluster: &Cluster,
    up: impl Fn(&str) -> Result<BTreeMap<String, bool>>,
) {
    for job in JOBS {
        wait_until("Prometheus sees every node", PATIENCE, || {
            let up = up(job)?;
            let all = up.len() == cluster.machines().len() && up.values().all(|up| *up);
            Ok(all.then_some(()))
        })
        .unwrap();
    }
}

/// A Prometheus that scrapes all the time, and what it has missed.
pub(crate) struct Scraper<'a> {
    cluster: &'a Cluster,
    told: BTreeMap<String, u64>,
}

impl<'a> Scraper<'a> {
    /// Begins when every node is scraped.
    pub(crate) fn begin(cluster: &'a Cluster) -> Self {
        cluster.start_prometheus().unwrap();
        until_every_node_is_scraped(cluster, |job| up(cluster, job));
        let told = BTreeMap::new();
        let mut scraper = Self { cluster, told };
        scraper.missed();
        scraper
    }

    /// How many scrapes have failed since it was asked last, by job and node, where any has. Everything was scraped once
    /// more after what came before.
    pub(crate) fn missed(&mut self) -> BTreeMap<String, u64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        wait_until("everything is scraped once more", PATIENCE, || {
            let oldest = self.values::<f64>("timestamp(up)")?.into_values();
            let oldest = oldest.reduce(f64::min).context("nothing is scraped")?;
            let oldest = Duration::from_secs_f64(oldest);
            Ok((oldest > now).then_some(()))
        })
        .unwrap();
        let failed = self.values("count_over_time(up[1h]) - sum_over_time(up[1h])");
        let failed: BTreeMap<String, u64> = failed.unwrap();
        let expected = JOBS.len() * self.cluster.machines().len();
        assert_eq!(failed.len(), expected, "{failed:?}");
        let before = mem::replace(&mut self.told, failed.clone());
        let since = failed.into_iter().map(|(target, failed)| {
            let before = before.get(&target).copied().unwrap_or_default();
            (target, failed - before)
        });
        since.filter(|(_, failed)| *failed > 0).collect()
    }

    fn values<T: FromStr>(&self, expression: &str) -> Result<BTreeMap<String, T>> {
        let results = self.cluster.ask_prometheus(PROMETHEUS_URL, expression)?;
        let one = |result: &Value| {
            let labels = &result["metric"];
            let [job, node] = [&labels["job"], &labels["node"]].map(Value::as_str);
            let value = result["value"][1].as_str()?.parse().ok()?;
            Some((format!("{} of {}", job?, node?), value))
        };
        Ok(results.iter().filter_map(one).collect())
    }
}
