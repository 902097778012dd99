//! Removes what a run that was killed left behind. The names say which process made them.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use rustix::mount::{UnmountFlags, unmount};

use crate::{bpffs, cgroup, netns, process, unique};

/// Removes everything of runs whose process is gone, once per process.
pub(crate) fn dead_runs_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| sweep(|owner| !process::exists(owner)));
}

/// Removes everything that process `owner` made; for a supervisor whose worker has ended.
pub fn after(owner: u32) {
    sweep(|other| other == owner);
}

fn sweep(ours: impl Fn(u32) -> bool) {
    let made_in = |directory: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let ours = |path: &PathBuf| {
            path.file_name()
                .and_then(OsStr::to_str)
                .and_then(unique::owner)
                .is_some_and(&ours)
        };
        entries.map(|entry| entry.path()).filter(ours).collect()
    };
    for path in made_in(Path::new(netns::DIRECTORY)) {
        netns::remove(&path.file_name().unwrap_or_default().to_string_lossy());
    }
    for hierarchy in cgroup::hierarchies().unwrap_or_default() {
        for path in made_in(&hierarchy) {
            cgroup::remove(&path);
        }
    }
    for path in made_in(Path::new(bpffs::MOUNT)) {
        bpffs::remove(&path);
    }
    for path in made_in(&std::env::temp_dir()) {
        // Few have a file system mounted in them.
        let _ = unmount(path.join("bpf"), UnmountFlags::DETACH);
        if let Err(error) = fs::remove_dir_all(&path) {
            eprintln!("{} stays behind: {error}", path.display());
        }
    }
}
