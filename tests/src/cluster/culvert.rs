//! Culvert on the cluster: the image imported, the manifests of `deploy/` applied, and nothing else.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Cluster, Machine, archive_path, wait_until};

/// Where Culvert's objects are.
pub const NAMESPACE: &str = "kube-system";
pub(super) const SERVER: &str = "culvert-server";
pub(super) const AGENT: &str = "culvert-agent";
pub(super) const RELAY: &str = "culvert-relay";
/// What an administrator labels cloud nodes with that are to have one.
const RELAY_LABEL: &str = "node-restriction.kubernetes.io/culvert-relay";
/// Its archive.
const IMAGE: &str = "culvert-for-tests.tar";
const PATIENCE: Duration = Duration::from_mins(2);

impl Cluster {
    /// Installs Culvert as `docs/kubernetes.md` tells to, and waits until all of it is ready.
    pub fn install_culvert(&self) -> Result<()> {
        self.import_culvert()?;
        let overlay = self.install_overlay()?;
        self.kubectl(["apply", "-k", &overlay.display().to_string()])?;
        self.wait_for_culvert()
    }

    /// Adds to it what serves the clients on cloud workers, as the manual tells to, and waits until it is ready.
    pub fn install_relay(&self) -> Result<()> {
        self.import(self.worker(), &archive_path(IMAGE)?)?;
        let label = format!("{RELAY_LABEL}=true");
        self.kubectl(["label", "node", self.worker().name(), &label])?;
        let overlay = self.workers_overlay()?;
        self.kubectl(["apply", "-k", &overlay.display().to_string()])?;
        self.wait_for(&[SERVER, AGENT, RELAY])
    }

    /// Brings Culvert's image to every machine.
    pub fn import_culvert(&self) -> Result<()> {
        let image = archive_path(IMAGE)?;
        for machine in self.machines() {
            self.import(machine, &image)?;
        }
        Ok(())
    }

    /// Waits until every pod of Culvert is of the newest revision and ready.
    pub fn wait_for_culvert(&self) -> Result<()> {
        self.wait_for(&[SERVER, AGENT])
    }

    fn wait_for(&self, daemon_sets: &[&str]) -> Result<()> {
        for daemon_set in daemon_sets {
            self.rolled_out(daemon_set)
                .with_context(|| format!("its pods said:\n{}", self.last_words(daemon_set)))?;
        }
        Ok(())
    }

    /// What `culvert status --json` of the server says.
    pub fn culvert_status(&self) -> Result<Value> {
        let server = format!("daemonset/{SERVER}");
        let status = [
            "-n", NAMESPACE, "exec", &server, "--", "/culvert", "status", "--json",
        ];
        let said = self.kubectl(status)?;
        serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))
    }

    /// What the server of the control plane counts.
    pub fn culvert_metrics(&self) -> Result<String> {
        Self::server_metrics(self.control_plane())
    }

    /// What the server of that machine counts.
    pub fn server_metrics(machine: &Machine) -> Result<String> {
        let curl = machine.launch("curl");
        let url = "--silent --show-error --fail http://127.0.0.1:10265/metrics";
        curl.words(url).start()?.succeed(Duration::from_secs(10))
    }

    /// `kubectl rollout status` would wait for the old server's pod as well, which ends what it carries.
    fn rolled_out(&self, daemon_set: &str) -> Result<()> {
        wait_until(&format!("{daemon_set} is rolled out"), PATIENCE, || {
            let set = self.get(&format!("-n {NAMESPACE} daemonset {daemon_set}"))?;
            let selector = format!("-l app.kubernetes.io/name={daemon_set}");
            let pods = self.get(&format!("-n {NAMESPACE} pods {selector}"))?;
            let generation = &set["metadata"]["annotations"][GENERATION];
            let pods = pods["items"].as_array().into_iter().flatten();
            let ready = pods.filter(|pod| is_ready(pod, generation)).count();
            let known = set["status"]["observedGeneration"] == set["metadata"]["generation"];
            let wanted = &set["status"]["desiredNumberScheduled"];
            Ok((known && *wanted != 0 && *wanted == ready).then_some(()))
        })
    }

    /// What the pods last said, as far as the API server can have it.
    fn last_words(&self, daemon_set: &str) -> String {
        let selector = format!("app.kubernetes.io/name={daemon_set}");
        let of_pods = ["-n", NAMESPACE, "-l", &selector];
        let described = self.kubectl(["describe", "pods"].iter().chain(&of_pods));
        let logs = self.kubectl(["logs", "--tail=20", "--prefix"].iter().chain(&of_pods));
        [described, logs]
            .map(|said| said.unwrap_or_else(|error| format!("{error:#}")))
            .join("\n")
    }
}

/// Which template a pod is of: an annotation of the `DaemonSet`, a label of the pod.
const GENERATION: &str = "deprecated.daemonset.template.generation";

fn is_ready(pod: &Value, generation: &Value) -> bool {
    let meta = &pod["metadata"];
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    let is_new = meta["labels"]["pod-template-generation"] == *generation;
    is_new && meta["deletionTimestamp"].is_null() && conditions.any(ready)
}
