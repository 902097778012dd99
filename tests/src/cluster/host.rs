//! What a cluster changes of the machine that it runs on, outside its directory: noted before, undone after.
//!
//! kubelets set kernel parameters that no namespace has; kubelet, containerd and CNI have a few directories
//! that no flag moves.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::Directory;

const FILE: &str = "host.json";

/// Three kubelets and containerds in one kernel, and who follows their pods' logs, need more than its default of 128.
const INOTIFY: &str = "fs/inotify/max_user_instances";
const INOTIFY_INSTANCES: u32 = 1024;

/// What is changed: the above by us, the others by kubelets, see `setupKernelTunables` in
/// [container_manager_linux.go](https://github.com/kubernetes/kubernetes/blob/v1.34.4/pkg/kubelet/cm/container_manager_linux.go).
const TUNABLES: [&str; 7] = [
    INOTIFY,
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Directories that are used under these names whatever one configures.
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

/// The machine as it was before.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Host {
    tunables: BTreeMap<String, String>,
    absent: Vec<PathBuf>,
}

impl Host {
    /// Notes how it is.
    pub(super) fn note(directory: &Directory) -> Result<()> {
        let tunables = TUNABLES.into_iter().filter_map(|name| {
            let value = fs::read_to_string(tunable(name)).ok()?;
            Some((name.to_owned(), value))
        });
        let absent = DIRECTORIES
            .into_iter()
            .map(PathBuf::from)
            .filter(|path| !path.exists());
        let host = Self {
            tunables: tunables.collect(),
            absent: absent.collect(),
        };
        directory.write(FILE, &host)
    }

    /// Makes room for what the programs of three machines ask of one kernel.
    pub(super) fn make_room() -> Result<()> {
        let path = tunable(INOTIFY);
        let read = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        if read
            .trim()
            .parse::<u32>()
            .is_ok_and(|now| now < INOTIFY_INSTANCES)
        {
            fs::write(&path, INOTIFY_INSTANCES.to_string())
                .with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// Makes it so again, as far as it was noted.
    pub(super) fn restore(directory: &Directory) -> Result<()> {
        let Some(host) = directory.read::<Self>(FILE)? else {
            return Ok(());
        };
        for (name, value) in &host.tunables {
            let path = tunable(name);
            if fs::read_to_string(&path).is_ok_and(|now| now != *value) {
                fs::write(&path, value).with_context(|| format!("write {}", path.display()))?;
            }
        }
        remove_log_links(directory.root());
        for path in &host.absent {
            remove_empty(path);
        }
        Ok(())
    }
}

/// Another cluster may use the directory by now.
fn remove_empty(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    // Refused if anything is left in it.
    let _ = fs::remove_dir(directory);
}

/// Where there were logs of other containers before, only ours go.
fn remove_log_links(ours: &Path) {
    for entry in fs::read_dir(CONTAINER_LOGS).into_iter().flatten().flatten() {
        let link = entry.path();
        if fs::read_link(&link).is_ok_and(|target| target.starts_with(ours)) {
            // What another process removed in between is gone as well.
            let _ = fs::remove_file(link);
        }
    }
}

fn tunable(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}
