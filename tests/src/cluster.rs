//! A real Kubernetes cluster in a [`Lab`]: every program is the real one, nothing in it knows of Culvert.
//!
//! ```text
//! control-plane  etcd, kube-apiserver, kube-controller-manager, kube-scheduler ─┐
//! edge-1, edge-2 behind the NAT, no route to them                               ├ each: containerd, kubelet, kube-proxy
//! worker-1       in the cloud as well, off until a test brings it in           ─┘
//! ```
//! One process makes a cluster and owns it ([`Cluster::bring_up`]); any other works with it ([`Cluster::open`]),
//! starts and stops its programs too. Everything is found by what is in its [`Directory`], so that it can be
//! removed after a crash as well ([`down`]).

mod another_server;
mod container_runtime;
mod control_plane;
mod coredns;
mod culvert;
mod directory;
mod host;
mod images;
mod kept_logs;
mod kube_proxy;
mod kubeconfig;
mod kubectl;
mod kubelet;
mod machine;
mod metrics_server;
mod nodes;
mod observers;
mod overlays;
mod owner;
mod pki;
mod pods;
mod program;
mod prometheus;
mod serving;
mod start;
mod stored;
mod teardown;
mod worker;
pub mod yurt_tunnel;

use std::ffi::OsStr;
use std::process::Child;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use serde_json::Value;

pub use another_server::AnotherServer;
pub use control_plane::API_SERVER;
use control_plane::CONTROLLERS;
pub use culvert::NAMESPACE as CULVERT_NAMESPACE;
pub use directory::Directory;
pub use images::{BUSYBOX, CLIENTS, CLIENTS_ARCHIVE, archive_path};
pub use kubectl::wait_until;
pub use machine::{Machine, Role};
pub use overlays::repository;
pub use pods::ask;
pub use program::Program;
pub use prometheus::{Job, PROMETHEUS_URL};
pub use serving::{OwnCluster, serve, serve_log};
pub use start::wait_for_owner;
pub use teardown::down;

use crate::{Lab, Launch};

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    directory: Directory,
    lab: Lab,
    machines: Vec<Machine>,
    worker: Machine,
    /// What this process started; whoever starts a process has to wait for its end.
    children: Mutex<Vec<Child>>,
}

impl Cluster {
    /// The cluster that another process made.
    pub fn open(directory: &Directory) -> Result<Self> {
        let (lab, machines, worker) = stored::read(directory)?;
        Ok(Self::of(directory, lab, machines, worker))
    }

    fn of(directory: &Directory, lab: Lab, machines: Vec<Machine>, worker: Machine) -> Self {
        Self {
            directory: directory.clone(),
            lab,
            machines,
            worker,
            children: Mutex::default(),
        }
    }

    /// Where its files are.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The network it is in.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The control plane, then the edges: those that run as long as the cluster does.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// The machine of the API server.
    pub fn control_plane(&self) -> &Machine {
        &self.machines[0]
    }

    /// The edge of that number, from 0 as in [`Lab::edge`].
    pub fn edge(&self, number: usize) -> &Machine {
        &self.machines[number + 1]
    }

    /// The machine that [`Self::start_worker`] brings in.
    pub fn worker(&self) -> &Machine {
        &self.worker
    }

    /// kubectl on the control plane, for the administrator; it still lacks its arguments.
    pub fn kubectl_launch(&self) -> Result<Launch> {
        kubectl::launch(&self.directory, self.control_plane())
    }

    /// Runs kubectl and returns what it says.
    pub fn kubectl<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<String> {
        kubectl::run(&self.kubectl_launch()?, args)
    }

    /// Runs `kubectl get` and returns the objects.
    pub fn get(&self, words: &str) -> Result<Value> {
        kubectl::get(&self.kubectl_launch()?, words)
    }

    /// Runs `kubectl apply` on an object, kept in a file of that name.
    pub fn apply(&self, name: &str, object: &Value) -> Result<()> {
        let file = self.directory.applied(name);
        directory::write_json(&file, object)?;
        self.kubectl([OsStr::new("apply"), OsStr::new("-f"), file.as_os_str()])
            .map(drop)
    }

    /// Hands an image archive to a machine.
    pub fn import(&self, machine: &Machine, archive: &std::path::Path) -> Result<()> {
        images::import(machine, archive)
    }

    /// Starts the program, or starts it again.
    pub fn start(&self, program: &Program) -> Result<()> {
        let child = program.start(&self.directory)?;
        self.children().push(child);
        Ok(())
    }

    /// Ends a program as its administrator does.
    pub fn stop(&self, name: &str) -> Result<()> {
        let stopped = program::stop(&self.directory, name);
        self.reap();
        stopped
    }

    /// Starts the API server, after [`Self::stop`], and waits until it answers.
    pub fn start_api_server(&self) -> Result<()> {
        let machine = self.control_plane();
        self.start(&control_plane::api_server(&self.directory, machine)?)?;
        self.wait_for_api_server()
    }

    /// Starts the controllers anew, with flags besides those that they always have.
    pub fn restart_controllers(&self, flags: &[(&str, &str)]) -> Result<()> {
        self.stop(CONTROLLERS)?;
        let mut controllers = control_plane::controllers(&self.directory, self.control_plane())?;
        for (name, value) in flags {
            controllers = controllers.flag(name, value);
        }
        self.start(&controllers)
    }

    /// The name of a machine's kubelet, for [`Self::stop`].
    pub fn kubelet(machine: &Machine) -> String {
        program::node_program(kubelet::NAME, machine.name())
    }

    /// Starts a machine's kubelet, after [`Self::stop`].
    pub fn start_kubelet(&self, machine: &Machine) -> Result<()> {
        self.start(&kubelet::program(&self.directory, machine)?)
    }

    /// Takes note of programs of this process that have ended.
    pub fn reap(&self) {
        self.children()
            .retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    fn children(&self) -> std::sync::MutexGuard<'_, Vec<Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last lines of what a program said.
    pub fn log_tail(&self, name: &str) -> Result<String> {
        let path = program::log(&self.directory, name);
        let text = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        Ok(lines[lines.len().saturating_sub(30)..].join("\n"))
    }
}
