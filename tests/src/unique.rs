//! Names that no other run uses: `cvt-<pid>-<n>-<label>`. The pid says whose leftovers they are.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context as _;

const PREFIX: &str = "cvt-";

/// A name for a namespace, cgroup or directory; starts a clean-up of dead runs on first use.
pub fn name(label: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    crate::sweep::dead_runs_once();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{number}-{label}", std::process::id())
}

/// The process that made `name`, if it is one of ours.
pub(crate) fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// A temporary directory of this run, removed with the guard.
pub fn scratch_dir(label: &str) -> anyhow::Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix(&format!("{}-", name(label)))
        .tempdir()
        .context("make a temporary directory")
}
