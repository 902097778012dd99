//! Services' addresses on every machine: agents and pods reach the API server by the one of `kubernetes`.

use anyhow::Result;
use serde_json::json;

use super::program::Program;
use super::{Directory, Machine};
use crate::programs::Kubernetes;

pub(super) const NAME: &str = "kube-proxy";

pub(super) fn program(directory: &Directory, machine: &Machine) -> Result<Program> {
    let file = machine.directory().join("kube-proxy.json");
    super::directory::write_json(&file, &config(directory, machine))?;
    let path = Kubernetes::chosen()?.program(NAME)?;
    Ok(Program::of_node(machine, NAME, path).flag("config", file.display()))
}

fn config(directory: &Directory, machine: &Machine) -> serde_json::Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": machine.name(),
        "clientConnection": { "kubeconfig": directory.kubeconfig(NAME) },
        "oomScoreAdj": 0,
        "nftables": { "minSyncPeriod": "100ms" },
        // The table of connections is the whole machine's: its limits are not a namespace's to set.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    })
}
