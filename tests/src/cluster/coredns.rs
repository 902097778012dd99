//! A `CoreDNS` in a pod of the control plane, with the plugin `hosts` as the manual has it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::culvert::NAMESPACE;
use super::kubectl::wait_until;
use super::overlays::repository;
use super::{BUSYBOX, Cluster};
use crate::programs;

/// What the manual tells to add to the cluster's own.
const SNIPPET: &str = "deploy/kubernetes/names/hosts.Corefile";
const PATIENCE: Duration = Duration::from_mins(2);

impl Cluster {
    /// Starts one in a pod of that name, in Culvert's namespace.
    pub fn start_coredns(&self, name: &str) -> Result<()> {
        let snippet = std::fs::read_to_string(repository().join(SNIPPET))?;
        let corefile = format!(".:53 {{\nerrors\n{snippet}}}\n");
        let config = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "data": { "Corefile": corefile },
        });
        self.apply(&format!("{name}-config"), &config)?;
        let program = programs::of_module("coredns", "coredns")?;
        let machine = self.control_plane().name();
        self.apply(name, &pod(name, machine, &program))?;
        wait_until("CoreDNS runs", PATIENCE, || {
            let status = &self.get(&format!("-n {NAMESPACE} pod {name}"))?["status"];
            ensure!(status["phase"] == "Running", "its status is {status}");
            Ok(Some(()))
        })
    }

    /// What that one answers: the first address of a name, if it has any.
    pub fn resolved(&self, coredns: &str, name: &str) -> Result<String> {
        let asked = format!("{name}.");
        let exec = [
            "-n",
            NAMESPACE,
            "exec",
            coredns,
            "--",
            "nslookup",
            "-type=a",
            &asked,
            "127.0.0.1",
        ];
        let said = self.kubectl(exec)?;
        // The first address is that of the server.
        let answers = said.lines().filter_map(|line| line.strip_prefix("Address"));
        let answer = answers.skip(1).last().context(said.clone())?;
        let words = answer.split_whitespace();
        let address = words
            .map(|word| word.trim_start_matches("1:"))
            .find(|word| word.contains('.'));
        address.map(str::to_owned).context(said.clone())
    }

    /// Where pods ask that one.
    pub fn coredns_address(&self, name: &str) -> Result<String> {
        let pod = self.get(&format!("-n {NAMESPACE} pod {name}"))?;
        let address = pod["status"]["podIP"].as_str();
        address.map(str::to_owned).context("it has no address")
    }

    /// Ends it.
    pub fn stop_coredns(&self, name: &str) -> Result<()> {
        let words = ["-n", NAMESPACE, "delete", "--force", "--grace-period=0"];
        let objects = [format!("pod/{name}"), format!("configmap/{name}")];
        self.kubectl(words.into_iter().chain(objects.iter().map(String::as_str)))
            .map(drop)
    }
}

fn pod(name: &str, machine: &str, program: &Path) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": {
            "nodeName": machine,
            "tolerations": [{ "operator": "Exists" }],
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "coredns",
                "image": BUSYBOX,
                "command": ["/coredns", "-conf", "/etc/coredns/Corefile"],
                "volumeMounts": [
                    { "name": "program", "mountPath": "/coredns", "readOnly": true },
                    { "name": "config", "mountPath": "/etc/coredns", "readOnly": true },
                    { "name": "tunnel-nodes", "mountPath": "/etc/edge", "readOnly": true },
                ],
            }],
            "volumes": [
                { "name": "program", "hostPath": { "path": program, "type": "File" } },
                { "name": "config", "configMap": { "name": name } },
                { "name": "tunnel-nodes", "configMap": { "name": "yurt-tunnel-nodes", "optional": true } },
            ],
        },
    })
}
