//! Overlays over the manifests of `deploy/`.
//!
//! The machines of a cluster share a kernel and its file systems. An overlay says what that changes: captured is the
//! control plane's part of cgroup2, and each machine's directories are on its own disk.

use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::culvert::{AGENT, NAMESPACE, RELAY, SERVER};
use super::{Cluster, Machine, directory};

const DAEMON_SET: (&str, &str) = ("apps/v1", "DaemonSet");
/// In which every machine of the cluster has its addresses.
const NODE_NETWORKS: &str = "10.78.0.0/16,fd00:78::/64";
const WORKERS: &str = "overlays/cloud-workers";
const JOB: (&str, &str) = ("batch/v1", "Job");

impl Cluster {
    /// Over `deploy/kubernetes/base`: what is installed.
    pub(super) fn install_overlay(&self) -> Result<PathBuf> {
        self.culvert_overlay("base")
    }

    /// Over the base, or over an overlay that contains it.
    pub fn culvert_overlay(&self, over: &str) -> Result<PathBuf> {
        self.write_overlay("overlay", over, &self.culvert_patches()?)
    }

    /// Over the overlay `cloud-workers`, whose server is on the worker.
    pub(super) fn workers_overlay(&self) -> Result<PathBuf> {
        let mut patches = self.culvert_patches()?;
        patches.push(patch(DAEMON_SET, RELAY, &server_patch(self.worker())?));
        self.write_overlay("overlay-workers", WORKERS, &patches)
    }

    fn culvert_patches(&self) -> Result<Vec<Value>> {
        Ok(vec![
            patch(DAEMON_SET, SERVER, &server_patch(self.control_plane())?),
            patch(DAEMON_SET, AGENT, &agent_patch(self.directory().root())),
        ])
    }

    /// Over `deploy/kubernetes/remove`: the job that takes Culvert out of the kernel of a machine.
    pub fn remove_overlay(&self, machine: &Machine) -> Result<PathBuf> {
        let pins = json!({ "name": "CULVERT_PIN_ROOT", "value": machine.pin_root()? });
        let kernel = json!([cgroup(machine)?, pins]);
        let pod = json!({ "containers": [{ "name": "remove", "env": kernel }] });
        let patches = [patch(JOB, "culvert-remove", &pod)];
        self.write_overlay("overlay-remove", "remove", &patches)
    }

    fn write_overlay(&self, name: &str, over: &str, patches: &[Value]) -> Result<PathBuf> {
        let overlay = self.directory().root().join(name);
        directory::make(&overlay)?;
        let manifests = repository().join("deploy/kubernetes").join(over);
        let kustomization = json!({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [relative(&overlay, &manifests)],
            "patches": patches,
        });
        directory::write_json(&overlay.join("kustomization.yaml"), &kustomization)?;
        Ok(overlay)
    }
}

/// The directory of all sources.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a directory of the repository")
}

/// Which processes are this machine's.
fn cgroup(machine: &Machine) -> Result<Value> {
    let below = machine.cgroup().strip_prefix("/sys/fs/cgroup")?;
    Ok(json!({ "name": "CULVERT_CGROUP", "value": Path::new("/host/cgroup").join(below) }))
}

fn server_patch(machine: &Machine) -> Result<Value> {
    let host = |path: PathBuf| json!({ "path": path, "type": "DirectoryOrCreate" });
    let disk = |path: &str| host(machine.directory().join(path));
    let networks = json!({ "name": "CULVERT_NODE_NETWORKS", "value": NODE_NETWORKS });
    Ok(json!({
        "containers": [{ "name": "server", "env": [cgroup(machine)?, networks] }],
        "volumes": [
            { "name": "bpf", "hostPath": host(machine.pin_root()?) },
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

fn patch((version, kind): (&str, &str), name: &str, pod: &Value) -> Value {
    let patch = json!({
        "apiVersion": version,
        "kind": kind,
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": { "template": { "spec": pod } },
    });
    json!({ "patch": patch.to_string() })
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
