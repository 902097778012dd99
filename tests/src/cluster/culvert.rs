//! Culvert on the cluster: the image imported, the manifests of `deploy/` applied, and nothing else.
//!
//! The machines of a cluster share a kernel and its file systems. An overlay says what that changes: captured is the
//! control plane's part of cgroup2, and each machine's directories are on its own disk.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Cluster, Machine, archive_path, directory, wait_until};
use crate::cgroup;

/// Where Culvert's objects are.
pub const NAMESPACE: &str = "kube-system";
const SERVER: &str = "culvert-server";
const AGENT: &str = "culvert-agent";
const PATIENCE: Duration = Duration::from_mins(2);

impl Cluster {
    /// Installs Culvert as `docs/kubernetes.md` tells to, and waits until all of it is ready.
    pub fn install_culvert(&self) -> Result<()> {
        let image = archive_path("culvert-for-tests.tar")?;
        for machine in self.machines() {
            self.import(machine, &image)?;
        }
        let overlay = self.write_overlay()?;
        self.kubectl(["apply", "-k", &overlay.display().to_string()])?;
        self.wait_for_culvert()
    }

    /// Waits until every pod of Culvert is of the newest revision and ready.
    pub fn wait_for_culvert(&self) -> Result<()> {
        for daemon_set in [SERVER, AGENT] {
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
        let curl = self.control_plane().launch("curl");
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

    fn write_overlay(&self) -> Result<PathBuf> {
        let overlay = self.directory().root().join("overlay");
        directory::make(&overlay)?;
        let base = relative(&overlay, &repository().join("deploy/kubernetes/base"));
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [base],
            "patches": [
                patch(SERVER, &server_patch(self.control_plane())?),
                patch(AGENT, &agent_patch(self.directory().root())),
            ],
        });
        directory::write_json(&overlay.join("kustomization.yaml"), &kustomization)?;
        Ok(overlay)
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

fn server_patch(machine: &Machine) -> Result<Value> {
    let cgroup = machine.cgroup();
    let inside = Path::new("/host/cgroup").join(cgroup.strip_prefix("/sys/fs/cgroup")?);
    let below = cgroup.strip_prefix(cgroup::mount()?)?;
    let disk =
        |path: &str| json!({ "path": machine.directory().join(path), "type": "DirectoryOrCreate" });
    Ok(json!({
        "containers": [{ "name": "server", "env": [
            { "name": "CULVERT_CGROUP", "value": inside },
            // Its name makes it the cluster's, which removes it.
            { "name": "CULVERT_PIN_ROOT", "value": Path::new("/sys/fs/bpf").join(below) },
        ]}],
        "volumes": [
            { "name": "state", "hostPath": disk("var/lib/culvert") },
            { "name": "run", "hostPath": disk("run/culvert") },
        ],
    }))
}

fn agent_patch(root: &Path) -> Value {
    let disks = json!({ "path": root, "type": "Directory" });
    let mount = json!({
        "mountPath": "/var/lib/culvert-agent",
        "name": "state",
        "subPathExpr": "$(NODE_NAME)/var/lib/culvert-agent",
    });
    json!({
        "containers": [{ "name": "agent", "volumeMounts": [mount] }],
        "volumes": [{ "name": "state", "hostPath": disks }],
    })
}

fn patch(daemon_set: &str, pod: &Value) -> Value {
    let patch = json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": { "name": daemon_set, "namespace": NAMESPACE },
        "spec": { "template": { "spec": pod } },
    });
    json!({ "patch": patch.to_string() })
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a directory of the repository")
}

/// kustomize takes no absolute paths.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let mut common = from.components().zip(to.components());
    let shared = common
        .by_ref()
        .take_while(|(one, other)| one == other)
        .count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(to.components().skip(shared)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_leads_from_one_directory_to_another() {
        let relative = |from: &str, to: &str| relative(Path::new(from), Path::new(to));
        assert_eq!(relative("/a/b/c", "/a/d"), Path::new("../../d"));
        assert_eq!(relative("/a", "/a/d/e"), Path::new("d/e"));
        assert_eq!(relative("/x/y", "/a"), Path::new("../../a"));
    }
}
