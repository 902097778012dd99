//! Who sees whom: TLS goes from the caller to the kubelet, and nobody stands between.

use std::net::IpAddr;

use anyhow::Context as _;
use culvert_tests::cluster::{Cluster, Machine, wait_until};
use culvert_tests::{Launch, command};

use crate::dials::shown_certificate;
use crate::stage::{PATIENCE, culvert};
use crate::tunnelled::Tunnelled;
use crate::{observers, pods};

/// Less than what two edges send until metrics-server has figures (12 KB), and Prometheus one answer to each job (66
/// KB); more than what one of them sends.
const FIGURES: u64 = 8_000;
const METRICS: u64 = 40_000;

/// A curl on the control plane that checks the kubelet's certificate and prints the answer with its status.
fn curl(cluster: &Cluster, user: Option<&str>, address: IpAddr, path: &str) -> Launch {
    let ca = cluster.directory().pki().join("ca.crt");
    let url = match address {
        IpAddr::V4(address) => format!("https://{address}:10250{path}"),
        IpAddr::V6(address) => format!("https://[{address}]:10250{path}"),
    };
    let curl = cluster.control_plane().launch("curl");
    let curl = curl
        .words("--silent --show-error --max-time 10 --globoff --write-out status=%{http_code} --cacert")
        .arg(ca)
        .arg(url);
    as_user(curl, cluster, user)
}

/// A curl that shows the certificate of that user, or none.
pub(crate) fn as_user(curl: Launch, cluster: &Cluster, user: Option<&str>) -> Launch {
    let Some(user) = user else { return curl };
    let config = cluster.directory().kubeconfig(user);
    curl.arg("--cert")
        .arg(config.with_extension("crt"))
        .arg("--key")
        .arg(config.with_extension("key"))
}

pub(crate) fn answer(launch: &Launch) -> String {
    let said = launch.start().unwrap().succeed(PATIENCE).unwrap();
    said.trim_end().to_owned()
}

fn edges(cluster: &Cluster) -> impl Iterator<Item = &Machine> {
    cluster.machines().iter().skip(1)
}

#[test]
fn the_kubelet_sees_the_callers_own_certificate_or_that_there_is_none() {
    let cluster = culvert();
    for edge in edges(cluster) {
        for address in edge.addresses() {
            let nobody = answer(&curl(cluster, None, address, "/pods"));
            assert!(nobody.ends_with("status=401"), "{address}: {nobody}");
            let admin = answer(&curl(cluster, Some("admin"), address, "/healthz"));
            assert!(admin.ends_with("status=200"), "{address}: {admin}");
            let scheduler = answer(&curl(cluster, Some("kube-scheduler"), address, "/metrics"));
            let named = scheduler.contains("user=system:kube-scheduler");
            assert!(
                named && scheduler.ends_with("status=403"),
                "{address}: {scheduler}"
            );
        }
    }
}

#[test]
fn the_caller_sees_the_kubelets_own_certificate() {
    let cluster = culvert();
    for edge in edges(cluster) {
        let own = edge
            .directory()
            .join("kubelet/pki/kubelet-server-current.pem");
        let own = std::fs::read(own).unwrap();
        let address = format!("{}:10250", edge.addresses()[0]);
        let seen = shown_certificate(cluster.control_plane(), &address);
        assert_eq!(
            fingerprint(seen.as_bytes()),
            fingerprint(&own),
            "{}",
            edge.name()
        );
    }
}

fn fingerprint(pem: &[u8]) -> String {
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["x509", "-noout", "-fingerprint", "-sha256"]);
    command::output_of(&mut openssl, std::str::from_utf8(pem).unwrap()).unwrap()
}

#[test]
fn the_api_server_proxies_to_the_node() {
    let cluster = culvert();
    let raw = |path: &str| {
        let path = format!("/api/v1/nodes/edge-1/proxy{path}");
        cluster.kubectl(["get", "--raw", &path]).unwrap()
    };
    let tunnelled = Tunnelled::now();
    let metrics = raw("/metrics");
    assert!(
        metrics.contains("kubelet_node_name{node=\"edge-1\"} 1"),
        "{metrics}"
    );
    assert!(raw("/metrics/cadvisor").contains("container_cpu_usage_seconds_total"));
    assert!(raw("/configz").contains("\"kubeletconfig\""));
    assert_eq!(raw("/healthz").trim_end(), "ok");
    // The kubelet compresses them.
    tunnelled.at_least(metrics.len() as u64 / 50);
}

#[test]
fn top_sees_every_node_and_its_pods() {
    let cluster = culvert();
    let tunnelled = Tunnelled::now();
    cluster.start_metrics_server().unwrap();
    wait_until("figures of every node", PATIENCE, || {
        let top = cluster.kubectl(["top", "nodes", "--no-headers"])?;
        let known = top.lines().filter(|line| !line.contains("<unknown>"));
        Ok((known.count() == cluster.machines().len()).then_some(()))
    })
    .unwrap();
    let pods = cluster.kubectl(["top", "pods", "-n", "kube-system", "--no-headers"]);
    let pods = pods.unwrap();
    assert_eq!(pods.matches("culvert-agent").count(), 2, "{pods}");
    tunnelled.at_least(FIGURES);
    cluster.stop_metrics_server().unwrap();
}

#[test]
fn prometheus_sees_every_node() {
    let cluster = culvert();
    let tunnelled = Tunnelled::now();
    cluster.start_prometheus().unwrap();
    observers::until_every_node_is_scraped(cluster, |job| observers::up(cluster, job));
    tunnelled.at_least(METRICS);
    cluster.stop("prometheus").unwrap();
}

#[test]
fn a_prometheus_in_a_pod_sees_every_node() {
    let cluster = culvert();
    let name = "prometheus-pod";
    let tunnelled = Tunnelled::now();
    cluster.start_prometheus_pod(name).unwrap();
    observers::until_every_node_is_scraped(cluster, |job| {
        let pod = cluster.get(&format!("pod {name}"))?;
        let address = pod["status"]["podIP"].as_str().context("no address yet")?;
        observers::up_at(cluster, &format!("http://{address}:9090"), job)
    });
    tunnelled.at_least(METRICS);
    pods::delete(cluster, name);
}
