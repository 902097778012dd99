//! A network namespace that lives as long as its guard.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{command, process, unique};

/// Where `ip netns` mounts its namespaces.
pub(crate) const DIRECTORY: &str = "/run/netns";

/// A namespace of a [`Lab`](crate::Lab); nobody else can make one, so nothing runs in one that has a way out.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    path: PathBuf,
    file: File,
    kept: bool,
}

impl NetNs {
    pub(crate) fn new(label: &str) -> Result<Self> {
        let name = unique::name(label);
        command::run("ip", ["netns", "add", &name])?;
        let mut namespace = Self::of_another(&name)?;
        namespace.kept = false;
        namespace.ip("link set lo up")?;
        // A flood has one source and one destination, at the client and at the agent: it would be out of
        // ports before those of its first connections leave TIME_WAIT, after a minute.
        namespace.sysctl("net.ipv4.tcp_tw_reuse", "1")?;
        Ok(namespace)
    }

    /// One that another process made and will remove.
    pub(crate) fn of_another(name: &str) -> Result<Self> {
        let path = Path::new(DIRECTORY).join(name);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self {
            name: name.to_owned(),
            path,
            file,
            kept: true,
        })
    }

    /// Leaves it to the sweep after this process.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }

    /// The name that `ip -n` takes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that `nsenter --net=` takes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `body` on a fresh thread inside the namespace; its panics go on here. Sockets and threads made
    /// by `body` (an async runtime's as well) belong to the namespace.
    pub fn run<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may enter a namespace that it made");
                body()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `ip -n <this namespace> <line>`.
    pub fn ip(&self, line: &str) -> Result<String> {
        command::run_line(&format!("ip -n {} {line}", self.name))
    }

    /// Loads an nftables script.
    pub fn nft(&self, script: &str) -> Result<()> {
        command::output_of(self.command("nft").args(["-f", "-"]), script).map(drop)
    }

    /// Writes a sysctl such as `net.ipv4.ip_forward` of this namespace.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.run(|| std::fs::write(&path, value))
            .with_context(|| format!("write {value} to {path}"))
    }

    /// A command that will run inside the namespace, for tools that end by themselves.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path.display()))
            .arg("--")
            .arg(program);
        command
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        if !self.kept {
            remove(&self.name);
        }
    }
}

/// Ends what runs in the namespace and removes it.
pub(crate) fn remove(name: &str) {
    if let Ok(pids) = command::run("ip", ["netns", "pids", name]) {
        process::kill_all(
            pids.split_whitespace().filter_map(|pid| pid.parse().ok()),
            PATIENCE,
        );
    }
    if let Err(error) = command::run("ip", ["netns", "del", name]) {
        eprintln!("namespace {name} stays behind: {error:#}");
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
