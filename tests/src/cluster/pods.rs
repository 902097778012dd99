//! Pods that somebody talks to.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::kubectl::wait_until;
use super::{BUSYBOX, Cluster};

/// How long a pod may take on a machine that does much else. A kubelet that has been without the API server asks it
/// again after up to a minute: <https://github.com/kubernetes/client-go/blob/v0.34.4/tools/cache/reflector.go#L283>.
const PATIENCE: Duration = Duration::from_mins(2);

impl Cluster {
    /// A pod that runs a line of shell, Running on `node`; with `host_network` in the node's own network.
    pub fn run_pod(&self, name: &str, node: &str, line: &str, host_network: bool) -> Result<()> {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name },
            "spec": {
                "nodeName": node,
                "hostNetwork": host_network,
                "tolerations": [{ "operator": "Exists" }],
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "main",
                    "image": BUSYBOX,
                    "command": ["sh", "-c", line],
                }],
            },
        });
        self.apply(name, &pod)?;
        self.wait_for_pod(name)
    }

    /// Waits until a pod is Running.
    pub fn wait_for_pod(&self, name: &str) -> Result<()> {
        wait_until(&format!("pod {name} runs"), PATIENCE, || {
            let status = &self.get(&format!("pod {name}"))?["status"];
            ensure!(status["phase"] == "Running", "its status is {status}");
            Ok(Some(()))
        })
    }

    /// The address of a pod, once it has one.
    pub fn pod_address(&self, name: &str) -> Result<Option<String>> {
        let pod = self.get(&format!("pod {name}"))?;
        Ok(pod["status"]["podIP"].as_str().map(str::to_owned))
    }

    /// Removes a pod, whether its kubelet answers or not.
    pub fn delete_pod(&self, name: &str) -> Result<()> {
        let words = ["delete", "pod", name, "--force", "--grace-period=0"];
        self.kubectl(words).map(drop)
    }
}

/// Lets a pod ask that server for names, and no other.
pub fn ask(pod: &mut Value, dns: Option<&str>) {
    if let Some(dns) = dns {
        pod["spec"]["dnsPolicy"] = "None".into();
        pod["spec"]["dnsConfig"] = json!({ "nameservers": [dns] });
    }
}
