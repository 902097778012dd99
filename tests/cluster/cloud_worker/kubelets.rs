//! Kubelets, as a pod of the worker sees them and as they see it: nobody stands between.

use culvert_tests::cluster::Cluster;

use super::{ACCOUNT, Worker, worker};
use crate::stage::PATIENCE;

/// What a pod dials to reach each edge node's kubelet: its address, and its name.
fn kubelets(cluster: &Cluster) -> impl Iterator<Item = (&str, String)> {
    cluster.machines().iter().skip(1).flat_map(|edge| {
        let hosts = [edge.addresses()[0].to_string(), edge.name().to_owned()];
        hosts.map(|host| (edge.name(), format!("https://{host}:10250")))
    })
}

/// How a curl shows the certificate of a user and verifies a kubelet's.
fn as_user(worker: &Worker, user: Option<&str>) -> String {
    let directory = worker.cluster.directory();
    let ca = directory.pki().join("ca.crt");
    let shown = user.map(|user| {
        let config = directory.kubeconfig(user);
        let (certificate, key) = (config.with_extension("crt"), config.with_extension("key"));
        format!("--cert {} --key {}", certificate.display(), key.display())
    });
    format!("--cacert {} {}", ca.display(), shown.unwrap_or_default())
}

#[test]
fn a_pod_reaches_kubelets_by_address_and_by_name_and_is_whoever_its_certificate_says() {
    let worker = worker();
    let before = worker.asked().unwrap();
    for (node, kubelet) in kubelets(worker.cluster) {
        let answer = |user, path: &str| {
            let as_user = as_user(worker, user);
            worker.curl(&format!("{as_user} {kubelet}{path}")).unwrap()
        };
        let nobody = answer(None, "/pods");
        assert!(nobody.ends_with("status=401"), "{kubelet}: {nobody}");
        let admin = answer(Some("admin"), "/metrics");
        let own = format!("kubelet_node_name{{node=\"{node}\"}} 1");
        assert!(admin.contains(&own), "{kubelet}: {admin}");
        let scheduler = answer(Some("kube-scheduler"), "/metrics");
        let is_named = scheduler.contains("user=system:kube-scheduler");
        assert!(
            is_named && scheduler.ends_with("status=403"),
            "{kubelet}: {scheduler}"
        );
    }
    // Those by address, by the worker's own server; those by name went to the Service.
    let asked = worker.asked().unwrap() - before;
    assert!(asked >= 6, "{asked} were carried by another server");
}

#[test]
fn a_pod_shows_the_token_of_its_service_account_and_needs_no_more_than_kubernetes_gives_it() {
    let worker = worker();
    for (node, kubelet) in kubelets(worker.cluster) {
        let own = format!(
            "--cacert {ACCOUNT}/ca.crt -H \"Authorization: Bearer $(cat {ACCOUNT}/token)\""
        );
        let answer = |path: &str| worker.curl(&format!("{own} {kubelet}{path}")).unwrap();
        let metrics = answer("/metrics");
        let named = format!("kubelet_node_name{{node=\"{node}\"}} 1");
        assert!(metrics.contains(&named), "{kubelet}: {metrics}");
        let pods = answer("/pods");
        let is_named = pods.contains("user=system:serviceaccount:default:worker-client");
        assert!(
            is_named && pods.ends_with("status=403"),
            "{kubelet}: {pods}"
        );
    }
}

#[test]
fn a_process_of_the_worker_itself_reaches_kubelets_by_both_of_their_addresses() {
    let worker = worker();
    for host in ["10.78.0.11", "[fd00:78::12]"] {
        let curl = worker.machine().launch("curl");
        let curl = curl.words("--silent --show-error --fail --max-time 10 --globoff");
        let curl = curl.words(&as_user(worker, Some("admin")));
        let curl = curl.arg(format!("https://{host}:10250/healthz"));
        let answer = curl.start().unwrap().succeed(PATIENCE).unwrap();
        assert_eq!(answer.trim_end(), "ok", "{host}");
    }
}
