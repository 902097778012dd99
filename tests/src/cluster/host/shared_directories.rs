//! Directories that kubelet, containerd and CNI use under these names whatever one configures.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cluster::Directory;
use crate::cluster::owner::Owner;

const DIRECTORIES: [&str; 6] = [
    "/run/containerd",
    "/run/runc",
    "/var/lib/cni",
    "/var/lib/kubelet",
    CONTAINER_LOGS,
    "/opt/containerd",
];

/// The kubelet puts a link to each container's log there.
const CONTAINER_LOGS: &str = "/var/log/containers";
/// CNI keeps what it made, as `<network>-<sandbox>-<interface>`.
const CNI_RESULTS: &str = "/var/lib/cni/results";
/// Kubelets take it from each other; nobody uses it.
const DEVICE_PLUGINS: &str = "/var/lib/kubelet/device-plugins/kubelet.sock";

/// Those that this machine does not have.
pub(super) fn absent() -> Vec<PathBuf> {
    let directories = DIRECTORIES.into_iter().map(PathBuf::from);
    directories.filter(|path| !path.exists()).collect()
}

/// Removes what is a cluster's in them.
pub(super) fn remove_traces(directory: &Directory, owner: Owner) {
    for link in entries(Path::new(CONTAINER_LOGS)) {
        if fs::read_link(&link).is_ok_and(|target| target.starts_with(directory.root())) {
            remove(&link);
        }
    }
    let ours = format!("cvt-{}-", owner.pid);
    for result in entries(Path::new(CNI_RESULTS)) {
        let name = result.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&ours) {
            remove(&result);
            if let Some(sandbox) = name.rsplit('-').nth(1) {
                let loopback = format!("cni-loopback-{sandbox}-lo");
                remove(&Path::new(CNI_RESULTS).join(loopback));
            }
        }
    }
}

/// Removes those of these directories that nobody uses, with the empty ones in them.
pub(super) fn remove_empty(directories: &[PathBuf]) {
    if directories
        .iter()
        .any(|path| Path::new(DEVICE_PLUGINS).starts_with(path))
    {
        remove(Path::new(DEVICE_PLUGINS));
    }
    for directory in directories {
        remove_if_empty(directory);
    }
}

fn remove_if_empty(directory: &Path) {
    let below = entries(directory)
        .into_iter()
        .filter(|path| path.is_dir() && !path.is_symlink());
    for path in below {
        remove_if_empty(&path);
    }
    // Refused if anything is left in it.
    let _ = fs::remove_dir(directory);
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// What somebody else has removed is gone as well.
fn remove(path: &Path) {
    let _ = fs::remove_file(path);
}
