//! Ports of the ConfigMap, from a pod of the worker.

use std::path::PathBuf;

use culvert_tests::cluster::{CULVERT_NAMESPACE, Cluster, wait_until};
use culvert_tests::{Daemon, until};

use super::observers::end_metrics_servers;
use super::worker;
use crate::objects::Ports;
use crate::stage::{PATIENCE, culvert, processes};
use crate::tidying::tidied;

/// What listens on an edge node's port 9100 and has metrics: Prometheus itself, which scrapes nobody.
pub(super) fn exporter(cluster: &Cluster) -> Daemon {
    let edge = cluster.edge(0);
    let home = edge.directory().join("exporter");
    std::fs::create_dir_all(&home).unwrap();
    let config = home.join("nothing.yaml");
    std::fs::write(&config, "").unwrap();
    let flag = |name: &str, path: PathBuf| format!("--{name}={}", path.display());
    let exporter = edge
        .launch("prometheus")
        .arg(flag("config.file", config))
        .arg(flag("storage.tsdb.path", home.join("data")))
        .arg(format!("--web.listen-address={}:9100", edge.addresses()[0]));
    let mut exporter = exporter.start().unwrap();
    exporter
        .wait_for_line("ready to receive web requests", PATIENCE)
        .unwrap();
    exporter
}

#[test]
fn a_pod_reaches_a_listed_http_port_by_address_and_by_name() {
    let worker = worker();
    let _exporter = exporter(worker.cluster);
    let _ports = Ports::new(worker.cluster, &[("http-proxy-ports", "9100")]);
    for host in ["10.78.0.11", "edge-1"] {
        until(&format!("{host} answers"), PATIENCE, || {
            let metrics = worker.curl(&format!("http://{host}:9100/metrics"))?;
            let well = metrics.contains("prometheus_build_info") && metrics.ends_with("status=200");
            Ok(well.then_some(()))
        })
        .unwrap();
    }
}

/// Lets servers take whoever they take at other ports at those that lead to a node's loopback as well; taken back with
/// its guard.
struct LoopbackForAll(&'static Cluster);

impl LoopbackForAll {
    fn new(cluster: &'static Cluster) -> Self {
        let this = Self(cluster);
        this.set("CULVERT_LOOPBACK_PORT_CLIENTS=all").unwrap();
        this
    }

    fn set(&self, variable: &str) -> anyhow::Result<()> {
        let server = "set env daemonset/culvert-server -n";
        let words = server.split(' ').chain([CULVERT_NAMESPACE, variable]);
        self.0.kubectl(words)?;
        self.0.wait_for_culvert()
    }
}

impl Drop for LoopbackForAll {
    fn drop(&mut self) {
        tidied(
            "loopback ports stay open",
            self.set("CULVERT_LOOPBACK_PORT_CLIENTS-"),
        );
    }
}

#[test]
fn what_listens_on_an_edge_nodes_loopback_is_for_pods_only_where_the_servers_are_told_so() {
    let (worker, cluster) = (worker(), culvert());
    // An agent's meta endpoints are on the loopback of its node only.
    let _ports = Ports::new(cluster, &[("localhost-proxy-ports", "10266")]);
    let own = worker
        .machine()
        .launch("curl")
        .words("--silent --show-error --fail --max-time 5 http://10.78.0.11:10266/metrics");
    until(
        "a process of the worker itself is answered",
        PATIENCE,
        || {
            let metrics = own.start()?.succeed(PATIENCE)?;
            Ok(metrics.contains("culvert_agent_sessions").then_some(()))
        },
    )
    .unwrap();
    let captured = worker.curl("http://10.78.0.11:10266/metrics");
    let captured = format!("{:#}", captured.unwrap_err());
    assert!(captured.contains("Failed to connect"), "{captured}");

    let by_name = || worker.curl("-H 'Host: edge-1:10266' http://10.77.0.1:10264/metrics");
    until("the refusal says why", PATIENCE, || {
        let refusal = by_name()?;
        let told = refusal.contains("--loopback-port-clients") && refusal.ends_with("status=403");
        Ok(told.then_some(()))
    })
    .unwrap();
    end_metrics_servers(cluster).unwrap();
    let for_all = LoopbackForAll::new(cluster);
    until("the agent answers", PATIENCE, || {
        let metrics = by_name()?;
        Ok(metrics.contains("culvert_agent_sessions").then_some(()))
    })
    .unwrap();
    drop(for_all);
    // Those that were replaced end what they carry first.
    wait_until("one server is left", PATIENCE, || {
        let servers = processes(cluster.control_plane(), "culvert");
        Ok((servers.len() == 1).then_some(()))
    })
    .unwrap();
}
