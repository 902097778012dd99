//! Removes a cluster, whole or half made, its process alive or not: everything is found by what is on disk.
//!
//! ```text
//! kubelets -> everything in the machines' namespaces and cgroups -> mounts -> what the host had before -> files
//! ```
//! Kubelets go first: they would start again what ends. A process belongs to a machine because the kernel says so,
//! by namespace and cgroup; no list of pids can be wrong.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::mount::{UnmountFlags, unmount};

use super::owner::Owner;
use super::program::{self, node_program};
use super::{Directory, Machine, host::Host, kept_logs, kubelet, stored};
use crate::{bpffs, sweep};

/// Ends the cluster's process, if it lives, and removes what is left. True if there was anything.
pub fn down(directory: &Directory) -> Result<bool> {
    let Some(owner) = Owner::read(directory)? else {
        return Ok(false);
    };
    owner.end()?;
    remove(directory)?;
    Ok(true)
}

/// Removes everything but the files; then nothing of it runs or is mounted.
pub(super) fn dismantle(directory: &Directory) -> Result<()> {
    let Some(owner) = Owner::read(directory)? else {
        return Ok(());
    };
    for machine in stored::machine_names(directory)? {
        program::kill(directory, &node_program(kubelet::NAME, &machine))?;
    }
    let machines = stored::machine_names(directory).unwrap_or_default();
    let shim_sockets = machines
        .iter()
        .flat_map(|machine| shim_sockets(&directory.machine(machine)))
        .collect();
    sweep::after(owner.pid);
    unmount_below(directory.root())?;
    remove_sockets(shim_sockets);
    Host::restore(directory, owner)
}

/// Ends what runs on one machine of a cluster that goes on. What is left of it is removed with the cluster.
pub(super) fn switch_off(directory: &Directory, machine: &Machine) -> Result<()> {
    program::kill(directory, &node_program(kubelet::NAME, machine.name()))?;
    let shim_sockets = shim_sockets(machine.directory());
    machine.kill_all()?;
    unmount_below(machine.directory())?;
    remove_sockets(shim_sockets);
    bpffs::remove(&machine.pin_root()?);
    Ok(())
}

/// The same, and the files.
pub(super) fn remove(directory: &Directory) -> Result<()> {
    dismantle(directory)?;
    kept_logs::keep(directory);
    match fs::remove_dir_all(directory.root()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", directory.root().display()))
        }
        _ => Ok(()),
    }
}

fn remove_sockets(sockets: Vec<PathBuf>) {
    for socket in sockets {
        // It is gone already where its shim ended in order.
        let _ = fs::remove_file(socket);
    }
}

/// Shims listen below /run/containerd; each notes its socket in its bundle, with containerd 2 in
/// [`bootstrap.json`](https://github.com/containerd/containerd/blob/v2.2.9/core/runtime/v2/binary.go#L143).
fn shim_sockets(machine: &Path) -> Vec<PathBuf> {
    let tasks = "containerd/state/io.containerd.runtime.v2.task/k8s.io";
    let bundles = fs::read_dir(machine.join(tasks)).into_iter().flatten();
    bundles
        .flatten()
        .filter_map(|bundle| shim_address(&bundle.path()))
        .filter_map(|address| Some(address.strip_prefix("unix://")?.trim().into()))
        .collect()
}

fn shim_address(bundle: &Path) -> Option<String> {
    if let Ok(address) = fs::read_to_string(bundle.join("address")) {
        return Some(address);
    }
    let params = fs::read(bundle.join("bootstrap.json")).ok()?;
    let params: serde_json::Value = serde_json::from_slice(&params).ok()?;
    Some(params["address"].as_str()?.to_owned())
}

/// Whatever is deleted next must not lead into a mount: a pod may have the host's directories mounted.
fn unmount_below(root: &Path) -> Result<()> {
    for mount in mounts_below(root)?.into_iter().rev() {
        unmount(&mount, UnmountFlags::DETACH)
            .with_context(|| format!("unmount {}", mount.display()))?;
    }
    if let Some(left) = mounts_below(root)?.first() {
        bail!("{} is still mounted; nothing is deleted", left.display());
    }
    Ok(())
}

/// In the order in which they were mounted.
fn mounts_below(root: &Path) -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    Ok(points
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(root))
        .collect())
}
