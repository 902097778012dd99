//! One program of the cluster: started so that it outlives whoever started it, found again by what is on disk.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Signal, pidfd_send_signal};

use super::directory::{make, write_json};
use super::owner::Owner;
use super::{Directory, Machine};
use crate::{Launch, process};

/// A program and how it is started. The name is unique in its cluster and names log and record.
#[derive(Debug, Clone)]
pub struct Program {
    name: String,
    launch: Launch,
}

impl Program {
    /// A program on `machine`: in its namespace and its cgroup, as all that runs there.
    pub(super) fn on(machine: &Machine, name: &str, path: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            launch: machine.launch(path),
        }
    }

    /// The same on every machine: the name tells which.
    pub(super) fn of_node(machine: &Machine, name: &str, path: PathBuf) -> Self {
        Self::on(machine, &node_program(name, machine.name()), path)
    }

    /// Adds one flag.
    pub(super) fn flag(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.launch = self.launch.arg(format!("--{name}={value}"));
        self
    }

    /// Starts it. What it says is appended to its log.
    pub(super) fn start(&self, directory: &Directory) -> Result<Child> {
        if handle(directory, &self.name)?.is_some() {
            bail!("{} runs already", self.name);
        }
        make(&directory.programs())?;
        let child = self.launch.start_detached(&log(directory, &self.name))?;
        let record = Owner::of(child.id()).with_context(|| format!("{} is gone", self.name))?;
        write_json(&record_of(directory, &self.name), &record)?;
        Ok(child)
    }
}

/// The name of a program that every node has.
pub(super) fn node_program(name: &str, machine: &str) -> String {
    format!("{name}@{machine}")
}

/// Where a program's words are.
pub(super) fn log(directory: &Directory, name: &str) -> PathBuf {
    directory.logs().join(format!("{name}.log"))
}

/// Ends a program: a request, and after ten seconds the end. One that does not run is ended.
pub(super) fn stop(directory: &Directory, name: &str) -> Result<()> {
    end(directory, name, Signal::TERM)
}

/// Ends a program as a crash does.
pub(super) fn kill(directory: &Directory, name: &str) -> Result<()> {
    end(directory, name, Signal::KILL)
}

fn end(directory: &Directory, name: &str, signal: Signal) -> Result<()> {
    let Some(handle) = handle(directory, name)? else {
        return Ok(());
    };
    pidfd_send_signal(&handle, signal).with_context(|| format!("signal {name}"))?;
    if !process::wait(&handle, Duration::from_secs(10)) {
        pidfd_send_signal(&handle, Signal::KILL).with_context(|| format!("kill {name}"))?;
        process::wait(&handle, Duration::from_secs(10));
    }
    Ok(())
}

/// True while the program runs.
pub(super) fn runs(directory: &Directory, name: &str) -> Result<bool> {
    Ok(handle(directory, name)?.is_some())
}

fn handle(directory: &Directory, name: &str) -> Result<Option<std::os::fd::OwnedFd>> {
    let path = record_of(directory, name);
    let Ok(record) = fs::read(&path) else {
        return Ok(None);
    };
    let record: Owner =
        serde_json::from_slice(&record).with_context(|| format!("read {}", path.display()))?;
    Ok(record.handle())
}

fn record_of(directory: &Directory, name: &str) -> PathBuf {
    directory.programs().join(format!("{name}.json"))
}
