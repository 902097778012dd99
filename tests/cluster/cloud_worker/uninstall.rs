//! Clients of the worker have no need any more: its server goes, and then the worker itself.

use culvert_tests::cluster::{CULVERT_NAMESPACE, repository, wait_until};

use super::observers::end_metrics_servers;
use super::{CLIENT, DNS, worker};
use crate::dials::is_not_captured_from;
use crate::manual;
use crate::stage::PATIENCE;
use crate::uninstall::attached;

#[test]
fn a_worker_whose_server_is_removed_keeps_nothing_of_it_and_may_leave() {
    let worker = worker();
    let (cluster, machine) = (worker.cluster, worker.machine());
    let pins = machine.pin_root().unwrap();
    assert!(pins.exists());
    assert_ne!(attached(machine), "");
    end_metrics_servers(cluster).unwrap();
    let files = repository().join("deploy/kubernetes/overlays/cloud-workers");
    for file in ["relay.yaml", "relay-rbac.yaml"] {
        let file = files.join(file);
        cluster
            .kubectl(["delete", "-f", file.to_str().unwrap()])
            .unwrap();
    }
    wait_until("its server is gone", PATIENCE, || {
        let words = format!("pods -n {CULVERT_NAMESPACE} -l app.kubernetes.io/name=culvert-relay");
        let pods = cluster.get(&words)?;
        Ok(pods["items"]
            .as_array()
            .is_some_and(Vec::is_empty)
            .then_some(()))
    })
    .unwrap();
    let overlay = cluster.remove_overlay(machine).unwrap();
    let recipe = format!(
        "kubectl kustomize {} | sed s/NODE/{}/ | kubectl create -f -
        kubectl -n kube-system wait --for=condition=complete --timeout=5m job/culvert-remove
        kubectl -n kube-system logs job/culvert-remove
        kubectl -n kube-system delete job culvert-remove",
        overlay.display(),
        machine.name()
    );
    let said = manual::run(cluster, &recipe);
    assert!(said.contains("removed 8 programs and "), "{said}");
    assert!(!pins.exists(), "{} stays", pins.display());
    assert_eq!(attached(machine), "");
    assert!(is_not_captured_from(machine, "10.78.0.11:10250"));

    cluster.stop_coredns(DNS).unwrap();
    cluster.delete_pod(CLIENT).unwrap();
    let rights = ["serviceaccount", "clusterrole", "clusterrolebinding"];
    for kind in rights {
        cluster.kubectl(["delete", kind, CLIENT]).unwrap();
    }
    cluster.stop_worker().unwrap();
    let nodes = cluster.get("nodes").unwrap();
    assert_eq!(
        nodes["items"].as_array().unwrap().len(),
        cluster.machines().len()
    );
}
