//! Pods that the tests talk to.

use culvert_tests::cluster::{BUSYBOX, Cluster, wait_until};
use serde_json::json;

use crate::stage::PATIENCE;

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
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "nodeName": node,
            "tolerations": [{ "operator": "Exists" }],
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main",
                "image": BUSYBOX,
                "command": ["sh", "-c", line],
            }],
        },
    });
    cluster.apply(name, &pod).unwrap();
    wait_until(&format!("pod {name} runs"), PATIENCE, || {
        let pod = cluster.get(&format!("pod {name}"))?;
        Ok((pod["status"]["phase"] == "Running").then_some(()))
    })
    .unwrap();
}

/// Removes a pod, whether its kubelet answers or not.
pub(crate) fn delete(cluster: &Cluster, name: &str) {
    let words = ["delete", "pod", name, "--force", "--grace-period=0"];
    cluster.kubectl(words).unwrap();
}
