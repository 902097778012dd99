//! Who made the cluster of a directory. Names of namespaces and cgroups hold its pid, so it must live as long as they.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Signal, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::Directory;
use crate::process;

const FILE: &str = "owner.json";
/// How long an owner may take to remove its cluster.
const PATIENCE: Duration = Duration::from_mins(2);

/// A process that can be told from a later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) pid: u32,
    started: u64,
}

impl Owner {
    /// Claims the directory for this process.
    pub(super) fn claim(directory: &Directory) -> Result<Self> {
        let own = Self::of(std::process::id()).context("the own process")?;
        directory.write(FILE, &own)?;
        Ok(own)
    }

    /// Whoever claimed the directory last.
    pub(super) fn read(directory: &Directory) -> Result<Option<Self>> {
        directory.read(FILE)
    }

    /// The process that has this pid now.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let started = process::started(pid)?;
        Some(Self { pid, started })
    }

    /// A handle of the process, if it still runs.
    pub(super) fn handle(self) -> Option<std::os::fd::OwnedFd> {
        // First the handle, then the look at the start time: what has been looked at is what the handle means.
        let handle = process::handle(self.pid).ok()?;
        (Self::of(self.pid) == Some(self) && !process::wait(&handle, Duration::ZERO))
            .then_some(handle)
    }

    /// Asks it to remove its cluster and waits until it has ended; true if it had to be asked.
    pub(super) fn end(self) -> Result<bool> {
        let Some(handle) = self.handle() else {
            return Ok(false);
        };
        pidfd_send_signal(&handle, Signal::TERM).context("signal the cluster's process")?;
        if !process::wait(&handle, PATIENCE) {
            pidfd_send_signal(&handle, Signal::KILL).context("kill the cluster's process")?;
            process::wait(&handle, PATIENCE);
        }
        Ok(true)
    }
}
