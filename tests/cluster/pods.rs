//! Pods that the tests talk to.

use culvert_tests::cluster::{BUSYBOX, Cluster, wait_until};
use serde_json::{Value, json};

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
    apply(cluster, name, &pod);
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

fn apply(cluster: &Cluster, name: &str, object: &Value) {
    let file = cluster.directory().root().join(format!("{name}.json"));
    std::fs::write(&file, object.to_string()).unwrap();
    let file = file.to_str().unwrap();
    cluster.kubectl(["apply", "-f", file]).unwrap();
}
