//! A child of the cgroup2 mount that lives as long as its guard.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::{process, unique};

/// A cgroup of one's own: programs attached here see only what is launched into it.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    kept: bool,
}

impl Cgroup {
    /// Makes a cgroup right below the cgroup2 mount.
    pub fn new(label: &str) -> Result<Self> {
        Self::below(&mount()?, label)
    }

    /// Makes a cgroup below this one.
    pub fn child(&self, label: &str) -> Result<Self> {
        Self::below(&self.path, label)
    }

    fn below(parent: &Path, label: &str) -> Result<Self> {
        let path = parent.join(unique::name(label));
        fs::create_dir(&path).with_context(|| format!("make cgroup {}", path.display()))?;
        Ok(Self { path, kept: false })
    }

    /// One that another process made and will remove.
    pub(crate) fn of_another(path: PathBuf) -> Self {
        Self { path, kept: true }
    }

    /// Leaves it to the sweep after this process.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The processes in it, without those of its children.
    pub fn pids(&self) -> Vec<u32> {
        pids(&self.path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.kept {
            remove(&self.path);
        }
    }
}

/// The mount point of cgroup2, wherever a hybrid host has it.
pub fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read mounts")?;
    mounts
        .lines()
        .find_map(|line| mounted(line, "cgroup2"))
        .context("no cgroup2 is mounted (mount -t cgroup2 none /sys/fs/cgroup)")
}

/// The mount points of all hierarchies: cgroup2, and on a hybrid host each controller's own.
pub(crate) fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read mounts")?;
    let one = |line| mounted(line, "cgroup").or_else(|| mounted(line, "cgroup2"));
    Ok(mounts.lines().filter_map(one).collect())
}

/// The mount point of a mountinfo line of that file system, see `proc_pid_mountinfo(5)`.
pub(crate) fn mounted(line: &str, file_system: &str) -> Option<PathBuf> {
    let (left, right) = line.split_once(" - ")?;
    if right.split(' ').next()? != file_system || left.split(' ').nth(3)? != "/" {
        return None;
    }
    left.split(' ')
        .nth(4)
        .map(|path| path.replace("\\040", " ").into())
}

/// Ends what runs in the cgroup and below it, then removes it.
pub(crate) fn remove(path: &Path) {
    for child in fs::read_dir(path).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&child.path());
        }
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        process::kill_all(pids(path), Duration::from_secs(5));
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Ok(()) => return,
            // The kernel lets go of a process a little after it has ended, and tells nobody.
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return eprintln!("cgroup {} stays behind: {error}", path.display()),
        }
    }
}

/// Ends what runs in the cgroup and below it, and removes what is below it, `kept` excepted.
pub(crate) fn clear(path: &Path, kept: &Path) {
    for child in fs::read_dir(path).into_iter().flatten().flatten() {
        if child.path() != kept && child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&child.path());
        }
    }
    for own in [path, kept] {
        process::kill_all(pids(own), Duration::from_secs(5));
    }
}

fn pids(path: &Path) -> Vec<u32> {
    let listed = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    listed.lines().filter_map(|pid| pid.parse().ok()).collect()
}
