//! A directory of the BPF file system to pin in, removed with everything pinned in it.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

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

/// A BPF file system of one's own, unmounted with everything pinned in it.
#[derive(Debug)]
pub struct BpfMount {
    directory: TempDir,
}

impl BpfMount {
    /// Mounts it with the mode that its root directory is to have, such as 1777, which `mount` gives it unasked.
    pub fn with_mode(mode: u32) -> Result<Self> {
        let directory = unique::scratch_dir("bpffs")?;
        // Other users are to get as far as the mount.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let point = directory.path().join("bpf");
        fs::create_dir(&point)?;
        let options = CString::new(format!("mode={mode:o}"))?;
        mount(
            "bpf",
            &point,
            "bpf",
            MountFlags::empty(),
            options.as_c_str(),
        )
        .context("mount a BPF file system")?;
        Ok(Self { directory })
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("bpf")
    }
}

impl Drop for BpfMount {
    fn drop(&mut self) {
        if let Err(error) = unmount(self.path(), UnmountFlags::DETACH) {
            eprintln!("{} stays mounted: {error}", self.path().display());
        }
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
