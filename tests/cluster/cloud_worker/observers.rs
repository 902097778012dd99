//! Prometheus and metrics-server as clusters have them: in pods of a worker, and told to dial nodes by their addresses
//! or by their names.

use anyhow::Result;
use culvert_tests::cluster::{Cluster, Job, Machine, wait_until};

use super::ports::exporter;
use super::{Worker, worker};
use crate::objects::Ports;
use crate::stage::PATIENCE;
use crate::{observers, pods};

const PROMETHEUS: &str = "worker-prometheus";
/// What each dials, and its pod.
const METRICS_SERVERS: [(&str, &str); 2] = [
    ("Hostname", "metrics-by-host-name"),
    ("InternalIP", "metrics-by-address"),
];

/// With the worker: one has figures when it has asked twice, 15 seconds apart, and other tests go on meanwhile.
pub(super) fn start_metrics_servers(cluster: &Cluster, dns: &str) -> Result<()> {
    METRICS_SERVERS.iter().try_for_each(|(kind, name)| {
        cluster.start_metrics_server_pod(name, cluster.worker(), kind, dns)
    })
}

/// For tests that wait for the end of a server, which stays for what they keep open: theirs may have been left out.
pub(super) fn end_metrics_servers(cluster: &Cluster) -> Result<()> {
    METRICS_SERVERS.iter().try_for_each(|(_, pod)| {
        let words = ["delete", "pod", pod, "--ignore-not-found"];
        cluster.kubectl(words).map(drop)
    })
}

/// Every node, the worker too.
fn nodes(cluster: &Cluster) -> impl Iterator<Item = &Machine> {
    cluster.machines().iter().chain([cluster.worker()])
}

fn host(machine: &Machine, by_name: bool) -> String {
    if by_name {
        machine.name().to_owned()
    } else {
        machine.addresses()[0].to_string()
    }
}

/// The kubelets of all nodes by HTTPS, and an exporter of one by HTTP: by address, and by name.
fn jobs(cluster: &Cluster) -> Vec<Job> {
    let jobs = [("address", false), ("name", true)].into_iter();
    jobs.flat_map(|(how, by_name)| {
        let kubelets = nodes(cluster).map(|machine| {
            let target = format!("{}:10250", host(machine, by_name));
            (machine.name(), target)
        });
        let edge = cluster.edge(0);
        let exporter = (edge.name(), format!("{}:9100", host(edge, by_name)));
        [
            Job::new(
                &format!("kubelet by {how}"),
                ("https", "/metrics"),
                kubelets,
            ),
            Job::new(
                &format!("exporter by {how}"),
                ("http", "/metrics"),
                [exporter],
            ),
        ]
    })
    .collect()
}

#[test]
fn a_prometheus_sees_every_node_by_address_and_by_name_over_https_and_http() {
    let Worker { cluster, dns } = worker();
    let _exporter = exporter(cluster);
    let _ports = Ports::new(cluster, &[("http-proxy-ports", "9100")]);
    let (machine, jobs) = (cluster.worker(), jobs(cluster));
    cluster
        .start_prometheus_for(PROMETHEUS, machine, Some(dns), &jobs)
        .unwrap();
    let all = nodes(cluster).count();
    for (job, nodes) in [
        ("kubelet by address", all),
        ("kubelet by name", all),
        ("exporter by address", 1),
        ("exporter by name", 1),
    ] {
        wait_until(&format!("{job} is seen"), PATIENCE, || {
            let Some(address) = cluster.pod_address(PROMETHEUS)? else {
                return Ok(None);
            };
            let up = observers::up_at(cluster, &format!("http://{address}:9090"), job)?;
            Ok((up.len() == nodes && up.values().all(|up| *up)).then_some(()))
        })
        .unwrap();
    }
    pods::delete(cluster, PROMETHEUS);
}

#[test]
fn top_sees_every_node_whether_metrics_server_dials_host_names_or_addresses() {
    let cluster = worker().cluster;
    for (kind, name) in METRICS_SERVERS {
        cluster.let_metrics_be_served_by(name).unwrap();
        wait_until(
            &format!("figures of every node by {kind}"),
            PATIENCE,
            || {
                let top = cluster.kubectl(["top", "nodes", "--no-headers"])?;
                let known = top.lines().filter(|line| !line.contains("<unknown>"));
                Ok((known.count() == nodes(cluster).count()).then_some(()))
            },
        )
        .unwrap();
        // What the API server still has open to it ends as well: the other is asked by all.
        pods::delete(cluster, name);
    }
    cluster.stop_serving_metrics().unwrap();
}
