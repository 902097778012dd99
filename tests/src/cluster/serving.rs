//! A cluster that goes when this process has ended, however it ends: another process makes, owns and removes it.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use super::Directory;
use crate::programs;

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
