//! Yurt-Tunnel as its users run it: in pods, with the objects of the manifests of `OpenYurt` 1.0, the last that there
//! were.
//!
//! There is no registry to pull its image from: the pods get its programs, and Debian's iptables and conntrack, from
//! the directories of this machine.

mod objects;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Cluster, wait_until};

/// Its server: the program, the `Deployment`, the service account.
pub const SERVER: &str = "yurt-tunnel-server";
/// Its agent: the program and the `DaemonSet`.
pub const AGENT: &str = "yurt-tunnel-agent";

const PATIENCE: Duration = Duration::from_mins(3);
const EDGES: u64 = 2;

/// Applies everything, does what remains to be done by hand, and waits until both agents are connected.
pub fn install(cluster: &Cluster) -> Result<Vec<String>> {
    let control = cluster.control_plane().name();
    cluster.kubectl(["label", "node", control, "openyurt.io/is-edge-worker=false"])?;
    for (name, object) in objects::all(cluster)? {
        cluster.apply(name, &object)?;
    }
    let started = Instant::now();
    let mut approved = 0;
    wait_until("both agents are connected", PATIENCE, || {
        approved += approve_pending(cluster)?;
        let agents = connected_agents(cluster)?;
        Ok((agents >= EDGES).then_some(()))
    })
    .with_context(|| last_words(cluster))?;
    eprintln!("connected after {:.0} s", started.elapsed().as_secs_f64());
    Ok(vec![
        "manifests (none are shipped since 1.2)".into(),
        "the label `is-edge-worker=false` on cloud nodes".into(),
        format!("{approved} CSRs approved"),
        "`--tunnelserver-addr` at the agents: since Kubernetes 1.32 a kubelet's identity may not list nodes".into(),
        "every edge node's IP in `--cert-ips`, else the API server refuses the certificate".into(),
    ])
}

/// Approves what waits, as yurt-manager would where it is installed.
pub fn approve_pending(cluster: &Cluster) -> Result<usize> {
    let requests = cluster.get("certificatesigningrequests")?;
    let requests = requests["items"].as_array().into_iter().flatten();
    let pending = |request: &&Value| request["status"]["conditions"].is_null();
    let names: Vec<_> = requests
        .filter(pending)
        .filter_map(|request| request["metadata"]["name"].as_str())
        .collect();
    if !names.is_empty() {
        cluster.kubectl(["certificate", "approve"].iter().chain(&names))?;
    }
    Ok(names.len())
}

fn connected_agents(cluster: &Cluster) -> Result<u64> {
    let curl = cluster.control_plane().launch("curl");
    let address = cluster.control_plane().addresses()[0];
    let curl = curl
        .words("--silent --show-error --fail")
        .arg(format!("http://{address}:10265/metrics"));
    let metrics = curl.start()?.succeed(Duration::from_secs(10))?;
    let name = "konnectivity_network_proxy_server_total_registered_agents ";
    let mut values = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let value = values.next().context("agents are not counted yet")?;
    Ok(value.parse()?)
}

fn last_words(cluster: &Cluster) -> String {
    let said = |words: &str| {
        let words = words.split(' ');
        cluster
            .kubectl(words)
            .unwrap_or_else(|error| format!("{error:#}"))
    };
    [
        said("-n kube-system get pods -o wide"),
        said("-n kube-system logs --tail=20 deployment/yurt-tunnel-server"),
        said("get certificatesigningrequests"),
    ]
    .join("\n")
}
