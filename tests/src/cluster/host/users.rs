//! Which clusters there are on this machine, whoever made them and wherever their files are.
//!
//! A machine that is noted while another cluster has changed it already would never be put back.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, flock};

use super::Host;
use crate::cluster::directory::{make, write_json};
use crate::cluster::owner::Owner;

/// Gone with the last cluster.
const DIRECTORY: &str = "/run/culvert-clusters";
const BEFORE: &str = "before.json";

/// Nobody else changes it as long as this lives.
pub(super) struct Users {
    directory: PathBuf,
    _lock: File,
}

impl Users {
    pub(super) fn lock() -> Result<Self> {
        Self::lock_at(Path::new(DIRECTORY))
    }

    fn lock_at(directory: &Path) -> Result<Self> {
        // The directory above: ours comes and goes.
        let above = directory.parent().context("a directory in another")?;
        let lock = File::open(above).with_context(|| format!("open {}", above.display()))?;
        flock(&lock, FlockOperation::LockExclusive).context("lock the list of clusters")?;
        Ok(Self {
            directory: directory.to_owned(),
            _lock: lock,
        })
    }

    /// Adds a cluster; before the first one, `note` says how the machine is.
    pub(super) fn add(&mut self, owner: Owner, note: impl FnOnce() -> Host) -> Result<()> {
        make(&self.directory)?;
        let before = self.directory.join(BEFORE);
        // It stays when all clusters were killed: it is still how the machine was before them.
        if !before.exists() {
            write_json(&before, &note())?;
        }
        write_json(&self.file(owner), &owner)
    }

    /// Removes a cluster; if it was the last, returns how the machine was before the first.
    pub(super) fn remove(&mut self, owner: Owner) -> Result<Option<Host>> {
        match fs::remove_file(self.file(owner)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            removed => removed.context("leave the list of clusters")?,
        }
        if self.has_living() {
            return Ok(None);
        }
        let before = self.directory.join(BEFORE);
        let text = fs::read(&before).with_context(|| format!("read {}", before.display()))?;
        let before = serde_json::from_slice(&text).context("how the machine was before")?;
        fs::remove_dir_all(&self.directory).context("remove the list of clusters")?;
        Ok(Some(before))
    }

    /// True if a cluster is listed whose process lives.
    fn has_living(&self) -> bool {
        let entries = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        let owners = entries.filter_map(|entry| fs::read(entry.path()).ok());
        owners
            .filter_map(|text| serde_json::from_slice::<Owner>(&text).ok())
            .any(|owner| owner.handle().is_some())
    }

    fn file(&self, owner: Owner) -> PathBuf {
        self.directory.join(format!("{}.json", owner.pid))
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn process() -> (Child, Owner) {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let owner = Owner::of(child.id()).unwrap();
        (child, owner)
    }

    fn noted(name: &str) -> Host {
        let tunables = [(name.to_owned(), "1".to_owned())].into();
        Host {
            tunables,
            absent: Vec::new(),
        }
    }

    #[test]
    fn what_was_before_the_first_is_handed_out_after_the_last_that_lives() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("clusters");
        let [(mut one, first), (mut other, second), (mut third, killed)] =
            [process(), process(), process()];
        let mut users = Users::lock_at(&directory).unwrap();
        users.add(first, || noted("first")).unwrap();
        users.add(second, || noted("second")).unwrap();
        users.add(killed, || noted("third")).unwrap();
        third.kill().unwrap();
        third.wait().unwrap();
        assert!(users.remove(first).unwrap().is_none());
        let before = users.remove(second).unwrap().unwrap();
        assert!(before.tunables.contains_key("first"), "{before:?}");
        assert!(!directory.exists());
        assert!(users.remove(killed).unwrap().is_none());
        for child in [&mut one, &mut other] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
