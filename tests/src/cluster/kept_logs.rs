//! Where `CULVERT_TEST_LOGS` names a directory, what programs and pods said outlives their cluster.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Directory, stored};

/// Copies all logs; what cannot be copied is told and left.
pub(super) fn keep(directory: &Directory) {
    let Some(kept) = std::env::var_os("CULVERT_TEST_LOGS").filter(|kept| !kept.is_empty()) else {
        return;
    };
    let name = directory
        .root()
        .file_name()
        .unwrap_or(OsStr::new("cluster"));
    let kept = PathBuf::from(kept).join(name);
    let machines = stored::machine_names(directory).unwrap_or_default();
    let of_pods = machines.iter().map(|machine| {
        let logs = directory.machine(machine).join("kubelet/logs");
        (logs, kept.join(machine))
    });
    for (from, to) in [(directory.logs(), kept.clone())]
        .into_iter()
        .chain(of_pods)
    {
        if let Err(error) = copy(&from, &to) {
            eprintln!("logs of {} are not kept: {error}", from.display());
        }
    }
}

/// Links are left out: they lead to the logs of containers, which are copied themselves.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if !from.exists() {
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, to) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
