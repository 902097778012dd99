//! A cluster that goes when this process has ended, however it ends: another process makes, owns and removes it.

use std::fs::File;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use super::{Cluster, Directory, down, wait_for_owner};
use crate::programs;

/// A cluster for whoever holds this alone.
#[derive(Debug)]
pub struct OwnCluster {
    cluster: Cluster,
    owner: Child,
}

impl OwnCluster {
    /// Brings one up in the directory, where one of an earlier process may have stayed.
    pub fn bring_up(directory: &Directory) -> Result<Self> {
        down(directory)?;
        let mut owner = serve(directory)?;
        wait_for_owner(directory, || matches!(owner.try_wait(), Ok(None)))?;
        let cluster = Cluster::open(directory)?;
        Ok(Self { cluster, owner })
    }
}

impl Deref for OwnCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        if let Err(error) = down(self.cluster.directory()) {
            eprintln!("the cluster stays behind: {error:#}");
        }
        // It has ended or has just been ended.
        let _ = self.owner.wait();
    }
}

/// Starts the owner; [`super::wait_for_owner`] waits for what it makes.
pub fn serve(directory: &Directory) -> Result<Child> {
    let log = File::create(serve_log(directory)).context("create the log of the owner")?;
    let own = std::process::id().to_string();
    Command::new(programs::cluster()?)
        .arg("--directory")
        .arg(directory.root())
        .args(["serve", "--until", &own])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start the cluster's process")
}

/// What the owner says; not in its directory, which it empties first.
pub fn serve_log(directory: &Directory) -> PathBuf {
    directory.root().with_extension("log")
}
