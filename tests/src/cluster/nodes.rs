//! Nodes, as the administrator of a cluster looks after them: serving certificates approved, roles labelled.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::kubectl::wait_until;
use super::{Cluster, Machine, Role};

const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const PATIENCE: Duration = Duration::from_mins(2);

impl Cluster {
    /// Waits until each machine is a Ready node with a serving certificate, approving what its kubelet asks for.
    pub(super) fn wait_for_nodes(&self, machines: &[&Machine]) -> Result<()> {
        wait_until("the nodes are Ready", PATIENCE, || {
            self.approve_kubelets()?;
            let nodes = self.get("nodes")?;
            let ready = |machine: &Machine| {
                let mut nodes = nodes["items"].as_array().into_iter().flatten();
                nodes.any(|node| node["metadata"]["name"] == machine.name() && is_ready(node))
            };
            let serves = |machine: &Machine| has_serving_certificate(machine);
            Ok(machines
                .iter()
                .all(|machine| ready(machine) && serves(machine))
                .then_some(()))
        })?;
        let role = "node-role.kubernetes.io/control-plane=";
        for machine in machines
            .iter()
            .filter(|machine| machine.role() == Role::ControlPlane)
        {
            self.kubectl(["label", "--overwrite", "node", machine.name(), role])?;
        }
        Ok(())
    }

    /// Approves the serving certificates that kubelets wait for, and nothing else: Culvert's own requests have the
    /// same signer and must not need a person.
    pub fn approve_kubelets(&self) -> Result<()> {
        let requests = self.get("certificatesigningrequests")?;
        let requests = requests["items"].as_array().into_iter().flatten();
        let pending: Vec<_> = requests
            .filter(|request| is_pending_kubelet(request))
            .filter_map(|request| request["metadata"]["name"].as_str())
            .collect();
        if pending.is_empty() {
            return Ok(());
        }
        let said = self.kubectl(["certificate", "approve"].into_iter().chain(pending))?;
        ensure!(said.contains("approved"), "nothing was approved: {said}");
        Ok(())
    }
}

fn is_pending_kubelet(request: &Value) -> bool {
    let spec = &request["spec"];
    let from_node = spec["username"]
        .as_str()
        .is_some_and(|user| user.starts_with("system:node:"));
    let decided = request["status"]["conditions"]
        .as_array()
        .is_some_and(|conditions| !conditions.is_empty());
    from_node && spec["signerName"] == KUBELET_SERVING && !decided
}

fn is_ready(node: &Value) -> bool {
    let mut conditions = node["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// The kubelet keeps its newest certificate under this name.
fn has_serving_certificate(machine: &Machine) -> bool {
    let current = "kubelet/pki/kubelet-server-current.pem";
    machine.directory().join(current).exists()
}
