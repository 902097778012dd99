//! Images come from archives beside the programs; there is no registry to ask.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{Machine, container_runtime};
use crate::programs;

/// Holds a pod's namespaces open.
pub(super) const PAUSE: &str = "culvert.dev/pause:1";
/// A shell and the usual tools, for pods of tests.
pub const BUSYBOX: &str = "culvert.dev/busybox:1";
/// The same with curl.
pub const CLIENTS: &str = "culvert.dev/clients:1";
/// Its archive, for [`super::Cluster::import`].
pub const CLIENTS_ARCHIVE: &str = "clients.tar";

/// The archives that every machine gets.
const ARCHIVES: [&str; 2] = ["pause.tar", "busybox.tar"];

/// Hands the common archives to a machine's containerd.
pub(super) fn import_all(machine: &Machine) -> Result<()> {
    for archive in ARCHIVES {
        import(machine, &archive_path(archive)?)?;
    }
    Ok(())
}

/// Hands an archive to a machine's containerd.
pub(super) fn import(machine: &Machine, archive: &Path) -> Result<()> {
    let socket = container_runtime::socket(machine);
    let mut ctr = machine
        .launch("ctr")
        .arg("--address")
        .arg(socket)
        .words("--namespace k8s.io images import")
        .arg(archive)
        .start()?;
    ctr.succeed(std::time::Duration::from_mins(1))
        .with_context(|| format!("import {}", archive.display()))
        .map(drop)
}

/// Where an archive is; `CULVERT_IMAGES_DIR` says where they are if not in the target directory.
pub fn archive_path(name: &str) -> Result<PathBuf> {
    let directory = match env::var_os("CULVERT_IMAGES_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => programs::target_directory()?.join("images"),
    };
    let path = directory.join(name);
    if !path.is_file() {
        bail!("there is no {} (cargo xtask cluster build)", path.display());
    }
    Ok(path)
}
