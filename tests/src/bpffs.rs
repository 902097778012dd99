//! A directory of the BPF file system to pin in, removed with everything pinned in it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount};

use crate::{cgroup, unique};

/// Where the BPF file system is mounted by convention.
pub(crate) const MOUNT: &str = "/sys/fs/bpf";

/// A pin directory of one's own.
#[derive(Debug)]
pub struct PinRoot {
    path: PathBuf,
}

impl PinRoot {
    /// Makes the directory; mounts the BPF file system where it is missing.
    pub fn new() -> Result<Self> {
        ensure_mounted()?;
        let path = Path::new(MOUNT).join(unique::name("pins"));
        fs::create_dir(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self { path })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PinRoot {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn ensure_mounted() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read mounts")?;
    if mounts
        .lines()
        .any(|line| cgroup::mounted(line, "bpf").is_some())
    {
        return Ok(());
    }
    mount("bpf", MOUNT, "bpf", MountFlags::empty(), None)
        .with_context(|| format!("mount the BPF file system on {MOUNT}"))
}

/// Unpins everything below `path`: what is attached only by its pin is detached.
pub(crate) fn remove(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("pins {} stay behind: {error}", path.display());
    }
}
