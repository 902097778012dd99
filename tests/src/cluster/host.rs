//! What clusters change of the machine that they run on, outside their directories: noted before the first of them,
//! undone after the last.
//!
//! kubelets set kernel parameters that no namespace has; kubelet, containerd and CNI have a few directories
//! that no flag moves.

mod shared_directories;
mod users;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::Directory;
use super::owner::Owner;
use users::Users;

/// What kubelets set, see `setupKernelTunables` in
/// [container_manager_linux.go](https://github.com/kubernetes/kubernetes/blob/v1.34.4/pkg/kubelet/cm/container_manager_linux.go).
const TUNABLES: [&str; 7] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    WATCHERS,
];

/// All of root's programs share it; the programs of one cluster need about forty, the default is 128.
const WATCHERS: &str = "fs/inotify/max_user_instances";
const ENOUGH_WATCHERS: u32 = 8192;

/// The machine as it was before there was a cluster.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Host {
    tunables: BTreeMap<String, String>,
    absent: Vec<PathBuf>,
}

impl Host {
    /// Notes how it is, unless there are clusters already, and makes it fit for one more.
    pub(super) fn prepare(owner: Owner) -> Result<()> {
        let mut users = Users::lock()?;
        users.add(owner, Self::now)?;
        let path = tunable(WATCHERS);
        let now: u32 = read(&path)?
            .trim()
            .parse()
            .context("a number of watchers")?;
        if now < ENOUGH_WATCHERS {
            write(&path, &ENOUGH_WATCHERS.to_string())?;
        }
        Ok(())
    }

    /// Removes what the cluster left in shared directories. After the last cluster everything is as it was.
    pub(super) fn restore(directory: &Directory, owner: Owner) -> Result<()> {
        let mut users = Users::lock()?;
        shared_directories::remove_traces(directory, owner);
        if let Some(before) = users.remove(owner)? {
            before.put_back()?;
        }
        Ok(())
    }

    fn now() -> Self {
        let tunables = TUNABLES.into_iter().filter_map(|name| {
            let value = fs::read_to_string(tunable(name)).ok()?;
            Some((name.to_owned(), value))
        });
        Self {
            tunables: tunables.collect(),
            absent: shared_directories::absent(),
        }
    }

    fn put_back(&self) -> Result<()> {
        for (name, value) in &self.tunables {
            let path = tunable(name);
            if read(&path)? != *value {
                write(&path, value)?;
            }
        }
        shared_directories::remove_empty(&self.absent);
        Ok(())
    }
}

fn tunable(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn write(path: &Path, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("write {}", path.display()))
}
