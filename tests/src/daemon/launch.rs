//! What to start, and where.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use super::Daemon;
use crate::{Cgroup, NetNs};

/// A program about to be started.
#[derive(Debug, Clone)]
pub struct Launch {
    program: PathBuf,
    args: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    namespace: Option<PathBuf>,
    cgroup: Option<PathBuf>,
}

impl Launch {
    /// A program that runs inside `namespace`.
    pub fn new(namespace: &NetNs, program: impl AsRef<Path>) -> Self {
        Self::within(namespace.path(), program)
    }

    /// The same, for the namespace's file.
    pub(crate) fn within(namespace: &Path, program: impl AsRef<Path>) -> Self {
        Self {
            namespace: Some(namespace.to_owned()),
            ..Self::offline(program)
        }
    }

    /// A program that dials nothing but sockets in the file system: `culvert token`, `culvert status`.
    pub fn offline(program: impl AsRef<Path>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            environment: Vec::new(),
            namespace: None,
            cgroup: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Adds the blank-separated words of `line` as arguments.
    #[must_use]
    pub fn words(self, line: &str) -> Self {
        self.args(line.split_whitespace())
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Puts the program into `cgroup` before its first instruction.
    #[must_use]
    pub fn cgroup(mut self, cgroup: &Cgroup) -> Self {
        self.cgroup = Some(cgroup.path().join("cgroup.procs"));
        self
    }

    /// Leaves the program in the cgroup of whoever starts it.
    #[must_use]
    pub fn without_cgroup(self) -> Self {
        Self {
            cgroup: None,
            ..self
        }
    }

    /// Starts it.
    pub fn start(&self) -> Result<Daemon> {
        let name = self
            .program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let child = self
            .command()
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))?;
        Daemon::new(name, child)
    }

    /// Another program in the same place, without arguments.
    #[must_use]
    pub fn with_program(&self, program: impl AsRef<Path>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            ..self.clone()
        }
    }

    /// Program and arguments as one would type them, for a shell in the same place; no word may need quoting.
    pub fn to_shell(&self) -> String {
        let words = std::iter::once(self.program.as_os_str());
        let words = words.chain(self.args.iter().map(OsString::as_os_str));
        let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
        words.join(" ")
    }

    /// Starts it with both streams appended to `log`, in a process group of its own: it outlives its starter.
    pub(crate) fn start_detached(&self, log: &Path) -> Result<Child> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        let mut command = self.command();
        command
            .stdout(log.try_clone().context("share a log")?)
            .stderr(log)
            .process_group(0);
        command
            .spawn()
            .with_context(|| format!("start {}", self.program.display()))
    }

    /// `sh` enters the cgroup, `nsenter` the namespace, and both become the program: one process, one pid.
    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "[ -z \"$0\" ] || echo $$ >\"$0\" || exit 125; exec \"$@\"",
        ]);
        command.arg(self.cgroup.as_deref().unwrap_or(Path::new("")));
        if let Some(namespace) = &self.namespace {
            command
                .arg("nsenter")
                .arg(format!("--net={}", namespace.display()))
                .arg("--");
        }
        command
            .arg(&self.program)
            .args(&self.args)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}
