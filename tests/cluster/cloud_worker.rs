//! Clients on a cloud node that is no control plane: a machine of its own with no route to the edge, and on it the
//! overlay `cloud-workers` as the manual tells to apply it. The worker is shared: the first of these tests brings it in,
//! and `uninstall`, whose name sorts last here, takes it away.

mod kubelets;
mod observers;
mod ports;
mod services;
mod takeovers;
mod uninstall;

use std::sync::OnceLock;

use anyhow::{Result, ensure};
use culvert_tests::cluster::{CLIENTS, CLIENTS_ARCHIVE, Cluster, Machine, archive_path, ask};
use serde_json::{Value, json};

use crate::dials::is_not_captured_from;
use crate::stage::{culvert, relayed_in};

/// The pod of most clients, its service account, and what that one may do.
const CLIENT: &str = "worker-client";
/// The pod of the DNS server that pods of the worker ask.
const DNS: &str = "worker-dns";
/// In pods.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The worker with all that clients need.
struct Worker {
    cluster: &'static Cluster,
    dns: String,
}

/// The shared one.
fn worker() -> &'static Worker {
    static WORKER: OnceLock<Result<Worker>> = OnceLock::new();
    let worker = WORKER.get_or_init(|| Worker::bring_in(culvert()));
    // Each test that needs it fails for the same reason.
    worker.as_ref().unwrap_or_else(|error| panic!("{error:#}"))
}

impl Worker {
    fn bring_in(cluster: &'static Cluster) -> Result<Self> {
        cluster.start_worker()?;
        let machine = cluster.worker();
        ensure!(
            is_not_captured_from(machine, "10.78.0.11:10250"),
            "without Culvert nothing leads from the worker to the edge"
        );
        cluster.install_relay()?;
        cluster.start_coredns(DNS)?;
        let dns = cluster.coredns_address(DNS)?;
        observers::start_metrics_servers(cluster, &dns)?;
        cluster.import(machine, &archive_path(CLIENTS_ARCHIVE)?)?;
        cluster.apply("worker-client-rights", &rights())?;
        cluster.apply(CLIENT, &client(cluster, &dns))?;
        cluster.wait_for_pod(CLIENT)?;
        Ok(Self { cluster, dns })
    }

    fn machine(&self) -> &Machine {
        self.cluster.worker()
    }

    /// What the pod's curl gets, and the status at its end; the words are those of a shell.
    fn curl(&self, words: &str) -> Result<String> {
        let line = format!(
            "curl --silent --show-error --max-time 10 --write-out status=%{{http_code}} {words}"
        );
        let said = self
            .cluster
            .kubectl(["exec", CLIENT, "--", "sh", "-c", &line])?;
        Ok(said.trim_end().to_owned())
    }

    /// How many connections its server has had carried by others.
    fn asked(&self) -> Result<u64> {
        let metrics = Cluster::server_metrics(self.machine())?;
        Ok(relayed_in(&metrics, "asked").unwrap_or(0))
    }
}

/// A pod sees the cluster's files where they are outside of it: certificates of users are among them.
fn client(cluster: &Cluster, dns: &str) -> Value {
    let files = cluster.directory().root();
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": CLIENT },
        "spec": {
            "nodeName": cluster.worker().name(),
            "serviceAccountName": CLIENT,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main",
                "image": CLIENTS,
                "command": ["sleep", "100000"],
                "volumeMounts": [{ "name": "files", "mountPath": files, "readOnly": true }],
            }],
            "volumes": [
                { "name": "files", "hostPath": { "path": files, "type": "Directory" } },
            ],
        },
    });
    ask(&mut pod, Some(dns));
    pod
}

/// Those of a scraper.
fn rights() -> Value {
    let group = "rbac.authorization.k8s.io";
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": CLIENT, "namespace": "default" },
        },
        {
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRole",
            "metadata": { "name": CLIENT },
            "rules": [{ "apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"] }],
        },
        {
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding",
            "metadata": { "name": CLIENT },
            "roleRef": { "apiGroup": group, "kind": "ClusterRole", "name": CLIENT },
            "subjects": [{ "kind": "ServiceAccount", "name": CLIENT, "namespace": "default" }],
        },
    ]})
}
