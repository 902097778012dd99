//! A program started in a namespace and a cgroup, its output captured, ended with its guard.

mod launch;
mod output;

use std::process::{Child, ExitStatus};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

pub use launch::Launch;
pub(crate) use output::Output;
use output::Stream;

use crate::{process, scale};

/// A running program. Dropping it kills it; a test that fails prints what it said.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    output: Output,
    ended: Option<ExitStatus>,
}

impl Daemon {
    pub(crate) fn new(name: String, mut child: Child) -> Result<Self> {
        let output = Output::capture(&name, &mut child)?;
        Ok(Self {
            name,
            child,
            output,
            ended: None,
        })
    }

    /// Its process id: `sh` and `nsenter` replaced themselves by the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has said so far, both streams in the order of arrival: a line of one may stand between two of the
    /// other.
    pub fn output(&self) -> String {
        self.output.text(None)
    }

    /// What it has said so far on its standard output: an answer of several lines, in one piece.
    pub fn answer(&self) -> String {
        self.output.text(Some(Stream::Out))
    }

    /// Waits for a line that contains `part` and returns it; lines seen before count.
    pub fn wait_for_line(&mut self, part: &str, patience: Duration) -> Result<String> {
        self.wait_for(patience, part, |line| line.contains(part))
    }

    /// Waits for the first line that `wanted` accepts, `what` says which.
    pub fn wait_for(
        &mut self,
        patience: Duration,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let patience = scale::patience(patience);
        self.output.wait_for(patience, wanted).with_context(|| {
            format!(
                "{} did not say {what:?} in {patience:?}; it said:\n{}",
                self.name,
                self.output()
            )
        })
    }

    /// Forgets the output so far, so that the next wait is for what comes.
    pub fn forget_output(&mut self) {
        self.output.forget();
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .context("a pid")?;
        if self.ended.is_some() {
            bail!("{} has ended already", self.name);
        }
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }

    /// SIGKILL, then wait.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(5))
    }

    /// SIGTERM, then wait.
    pub fn stop(&mut self, patience: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(patience)
    }

    /// Waits for it to end.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        // Nobody else reaps the child, so its pid still means it.
        let handle = process::handle(self.pid()).context("open the process")?;
        let patience = scale::patience(patience);
        if !process::wait(&handle, patience) {
            bail!(
                "{} still runs after {patience:?}; it said:\n{}",
                self.name,
                self.output()
            );
        }
        let status = self.child.wait()?;
        self.ended = Some(status);
        self.output.finish();
        Ok(status)
    }

    /// True until it has ended.
    pub fn is_running(&mut self) -> bool {
        self.ended.is_none() && self.wait(Duration::ZERO).is_err()
    }

    /// Waits for it to end well and returns its [answer](Self::answer).
    pub fn succeed(&mut self, patience: Duration) -> Result<String> {
        let status = self.wait(patience)?;
        if !status.success() {
            bail!(
                "{} failed ({status}); it said:\n{}",
                self.name,
                self.output()
            );
        }
        Ok(self.answer())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            self.output.finish();
        }
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}---", self.name, self.output());
        }
    }
}
