//! Pods that the tests talk to.

use culvert_tests::cluster::Cluster;

/// A pod that says hello and then sleeps, Running on `node`.
pub(crate) fn sleeping(cluster: &Cluster, name: &str, node: &str) {
    running(
        cluster,
        name,
        node,
        "echo hello from $HOSTNAME; exec sleep 100000",
    );
}

/// A pod that runs a line of shell, Running on `node`.
pub(crate) fn running(cluster: &Cluster, name: &str, node: &str, line: &str) {
    cluster.run_pod(name, node, line, false).unwrap();
}

/// Removes a pod, whether its kubelet answers or not.
pub(crate) fn delete(cluster: &Cluster, name: &str) {
    cluster.delete_pod(name).unwrap();
}
