//! What watches nodes by their IPs.

use std::time::Duration;

use anyhow::Result;
use culvert_tests::cluster::{PROMETHEUS_URL, wait_until};

use super::Row;
use crate::stage::Stage;

const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) const PROMETHEUS: Row = Row {
    name: "Prometheus by node IP",
    meaning: "a Prometheus beside the API server, with a certificate of its own and a right to `nodes/metrics`, scrapes kubelet and \
              cAdvisor of every node.",
    measure: prometheus,
    always: false,
};

pub(crate) const METRICS_SERVER: Row = Row {
    name: "metrics-server, `kubectl top nodes`",
    meaning: "metrics-server 0.7.2, which checks the kubelets' certificates, has figures of every node.",
    measure: metrics_server,
    always: false,
};

fn prometheus(stage: &Stage) -> Result<String> {
    let cluster = &stage.cluster;
    cluster.start_prometheus()?;
    let seen = ["kubelet", "cadvisor"].into_iter().try_for_each(|job| {
        wait_until("Prometheus sees every node", PATIENCE, || {
            let up = cluster.scraped(PROMETHEUS_URL, job)?;
            let all = up.len() == cluster.machines().len() && up.values().all(|up| *up);
            Ok(all.then_some(()))
        })
    });
    cluster.stop("prometheus")?;
    seen.map(|()| "works".into())
}

fn metrics_server(stage: &Stage) -> Result<String> {
    let cluster = &stage.cluster;
    cluster.start_metrics_server()?;
    let seen = wait_until("figures of every node", PATIENCE, || {
        let top = cluster.kubectl(["top", "nodes", "--no-headers"])?;
        let known = top.lines().filter(|line| !line.contains("<unknown>"));
        Ok((known.count() == cluster.machines().len()).then_some(()))
    });
    cluster.stop_metrics_server()?;
    seen.map(|()| "works".into())
}
