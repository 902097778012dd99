//! Objects that tests make and change: Nodes without a machine, the ConfigMap of ports, and what is said about them.

use anyhow::Result;
use culvert_tests::cluster::{CULVERT_NAMESPACE, Cluster};
use serde_json::json;

use crate::tidying::tidied;

/// What makes a node Culvert's.
pub(crate) const EDGE_LABEL: &str = "openyurt.io/is-edge-worker=true";

/// A Node object that no kubelet stands behind; removed with its guard.
pub(crate) struct Ghost {
    cluster: &'static Cluster,
    name: &'static str,
}

impl Ghost {
    pub(crate) fn new(cluster: &'static Cluster, name: &'static str, address: &str) -> Self {
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } });
        cluster.apply(name, &node).unwrap();
        let ghost = Self { cluster, name };
        ghost.move_to(address);
        ghost
    }

    /// Gives it another address.
    pub(crate) fn move_to(&self, address: &str) {
        give_addresses(self.cluster, self.name, &[address]).unwrap();
    }

    /// Adds a label, or removes it with a `-` at its end.
    pub(crate) fn label(&self, label: &str) {
        self.cluster
            .kubectl(["label", "node", self.name, label])
            .unwrap();
    }
}

impl Drop for Ghost {
    fn drop(&mut self) {
        // An agent's pod that was made for it: its DaemonSet hears of it only now.
        let waiting = "--field-selector=status.phase=Pending";
        let gone = self
            .cluster
            .kubectl(["delete", "node", self.name])
            .and_then(|_| {
                let words = [
                    "delete",
                    "pods",
                    "-n",
                    CULVERT_NAMESPACE,
                    "--force",
                    waiting,
                ];
                self.cluster.kubectl(words)
            });
        if let Err(error) = gone {
            eprintln!("the node {} stays: {error:#}", self.name);
        }
    }
}

/// Writes these `InternalIP`s, and no other addresses, into the Node's status, as its kubelet could.
pub(crate) fn give_addresses(cluster: &Cluster, node: &str, addresses: &[&str]) -> Result<()> {
    let internal = |address: &&str| json!({ "type": "InternalIP", "address": address });
    let addresses: Vec<_> = addresses.iter().map(internal).collect();
    let patch = json!({ "status": { "addresses": addresses } }).to_string();
    let words = [
        "patch",
        "node",
        node,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    cluster.kubectl(words).map(drop)
}

/// The ConfigMap of tunnelled ports; removed with its guard.
pub(crate) struct Ports(&'static Cluster);

const PORTS: &str = "yurt-tunnel-server-cfg";

impl Ports {
    pub(crate) fn new(cluster: &'static Cluster, data: &[(&str, &str)]) -> Self {
        let ports = Self(cluster);
        ports.set(data);
        ports
    }

    /// Replaces all keys.
    pub(crate) fn set(&self, data: &[(&str, &str)]) {
        self.replace(data).unwrap();
    }

    fn replace(&self, data: &[(&str, &str)]) -> Result<()> {
        let data: serde_json::Map<_, _> = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).into()))
            .collect();
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": PORTS, "namespace": CULVERT_NAMESPACE },
            "data": data,
        });
        self.0.apply(PORTS, &map)
    }

    pub(crate) fn delete(&self) {
        let words = ["delete", "configmap", PORTS, "-n", CULVERT_NAMESPACE];
        self.0
            .kubectl(words.into_iter().chain(["--ignore-not-found"]))
            .unwrap();
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        // Empty values end the ports; a missing ConfigMap would keep them.
        tidied("the ports stay", self.replace(&[]));
    }
}

/// The notes of the Events about an object with that reason.
pub(crate) fn events(
    cluster: &Cluster,
    kind: &str,
    name: &str,
    reason: &str,
) -> Result<Vec<String>> {
    let events = cluster.get("events --all-namespaces")?;
    let events = events["items"].as_array().into_iter().flatten();
    let about = events.filter(|event| {
        let object = &event["involvedObject"];
        object["kind"] == kind && object["name"] == name && event["reason"] == reason
    });
    Ok(about
        .filter_map(|event| event["message"].as_str().map(str::to_owned))
        .collect())
}
