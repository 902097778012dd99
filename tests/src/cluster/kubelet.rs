//! The kubelet of each machine, with a cgroup tree of its own in every hierarchy.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::directory::{make, write_json};
use super::program::Program;
use super::{Directory, Machine, Role, container_runtime, kubeconfig};
use crate::{cgroup, programs::Kubernetes};

pub(super) const NAME: &str = "kubelet";
/// Where it listens for device plugins, a
/// [constant](https://github.com/kubernetes/kubernetes/blob/v1.34.4/staging/src/k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1/constants.go#L37).
pub(super) const DEVICE_PLUGINS: &str = "/var/lib/kubelet/device-plugins/kubelet.sock";
/// What makes a node Culvert's, as `OpenYurt` labels it.
const EDGE_LABEL: &str = "openyurt.io/is-edge-worker=true";
/// Below the machine's cgroup: beside its programs, as cgroup2 wants it.
const PODS: &str = "pods";

pub(super) fn program(directory: &Directory, machine: &Machine) -> Result<Program> {
    let home = machine.directory().join("kubelet");
    make(&home.join("logs"))?;
    let root = cgroup_root(machine)?;
    let file = home.join("config.json");
    write_json(&file, &config(directory, machine, &home, &root))?;
    let [ipv4, ipv6] = machine.addresses();
    let path = Kubernetes::chosen()?.program(NAME)?;
    let program = Program::of_node(machine, NAME, path)
        .flag("config", file.display())
        .flag(
            "kubeconfig",
            directory
                .kubeconfig(&kubeconfig::of_node(machine))
                .display(),
        )
        .flag("root-dir", home.display())
        .flag("cert-dir", home.join("pki").display())
        .flag("hostname-override", machine.name())
        .flag("node-ip", format_args!("{ipv4},{ipv6}"));
    Ok(match machine.role() {
        Role::ControlPlane | Role::Worker => program,
        Role::Edge => program.flag("node-labels", EDGE_LABEL),
    })
}

fn config(directory: &Directory, machine: &Machine, home: &Path, root: &str) -> Value {
    let taints = match machine.role() {
        Role::ControlPlane => json!([{
            "key": "node-role.kubernetes.io/control-plane",
            "effect": "NoSchedule",
        }]),
        Role::Edge | Role::Worker => json!([]),
    };
    let socket = container_runtime::socket(machine);
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", socket.display()),
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": directory.pki().join("ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        // Its certificate is asked for and approved, as on a cluster that is kept well.
        "serverTLSBootstrap": true,
        "readOnlyPort": 10255,
        "registerWithTaints": taints,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": root,
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": false,
        "oomScoreAdj": 0,
        "podLogsDir": home.join("logs"),
        "volumePluginDir": home.join("volume-plugins"),
        "resolvConf": "",
        // The disk is the developer's, who may have little left.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "imagefs.available": "0%",
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
        },
        "shutdownGracePeriod": "0s",
    })
}

/// Makes the pods' cgroup in every hierarchy; returns its name there.
fn cgroup_root(machine: &Machine) -> Result<String> {
    let below = machine.cgroup().strip_prefix(cgroup::mount()?)?;
    for hierarchy in cgroup::hierarchies()? {
        let own = hierarchy.join(below);
        for (parent, child) in [(hierarchy, own.clone()), (own.clone(), own.join(PODS))] {
            make(&child)?;
            inherit_cpuset(&parent, &child)?;
        }
    }
    Ok(format!("/{}/{PODS}", below.display()))
}

/// A new cpuset of cgroup v1 has neither processors nor memory, and takes no process until it has both.
fn inherit_cpuset(parent: &Path, child: &Path) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to): (PathBuf, PathBuf) = (parent.join(name), child.join(name));
        let is_v1 = parent.join("cgroup.clone_children").exists();
        if is_v1 && from.exists() {
            let value = fs::read(&from).with_context(|| format!("read {}", from.display()))?;
            fs::write(&to, value).with_context(|| format!("write {}", to.display()))?;
        }
    }
    Ok(())
}
