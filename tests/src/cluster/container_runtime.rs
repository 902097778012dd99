//! containerd with runc, one for each machine, and the network that it gives to pods.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::Machine;
use super::directory::{make, write_json};
use super::images::PAUSE;
use super::machine::pod_range;
use super::program::Program;
use crate::programs::Kubernetes;

pub(super) const NAME: &str = "containerd";
/// Where Debian's containernetworking-plugins are.
const CNI_PLUGINS: &str = "/usr/lib/cni";

/// Where containerd listens.
pub(super) fn socket(machine: &Machine) -> PathBuf {
    directory(machine).join("containerd.sock")
}

pub(super) fn program(machine: &Machine) -> Result<Program> {
    let config = directory(machine).join("config.toml");
    make(&directory(machine))?;
    let (path, shim) = Kubernetes::chosen()?.container_runtime()?;
    fs::write(&config, self::config(machine, shim.as_deref()))
        .context("write containerd's configuration")?;
    pod_network(machine)?;
    Ok(Program::of_node(machine, NAME, path).flag("config", config.display()))
}

fn directory(machine: &Machine) -> PathBuf {
    machine.directory().join("containerd")
}

fn config(machine: &Machine, shim: Option<&Path>) -> String {
    let directory = directory(machine);
    let directory = directory.display();
    let shim = shim.map(|shim| format!("runtime_path = \"{}\"", shim.display()));
    let shim = shim.unwrap_or_default();
    format!(
        r#"version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"]
[grpc]
address = "{directory}/containerd.sock"
[ttrpc]
address = "{directory}/containerd.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
disable_tcp_service = true
disable_apparmor = true
restrict_oom_score_adj = true
# Namespaces of pods go with the directory, whoever ends how.
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
{shim}
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
# Else it is one of all containerds on the host: what one cluster removes, another may need.
Root = "{directory}/runc"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{CNI_PLUGINS}"
conf_dir = "{directory}/cni"
"#
    )
}

/// A bridge with addresses of the machine's own range. Pods of different edges do not meet: between
/// them is the NAT.
fn pod_network(machine: &Machine) -> Result<()> {
    let cni = directory(machine).join("cni");
    make(&cni)?;
    let network = json!({
        "cniVersion": "0.4.0",
        "name": network_name(machine),
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "dataDir": directory(machine).join("addresses"),
                    "ranges": [[{ "subnet": pod_range(machine) }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    write_json(&cni.join("10-bridge.conflist"), &network)
}

/// Unique on this machine: results of CNI are cached under it in a directory that all clusters share.
pub(super) fn network_name(machine: &Machine) -> String {
    let cgroup = machine.cgroup().file_name().unwrap_or_default();
    cgroup.to_string_lossy().into_owned()
}
