//! Brings a cluster up, and keeps it for as long as it is wanted.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::control_plane::API_SERVER;
use super::host::Host;
use super::kubectl::wait_until;
use super::owner::Owner;
use super::pki::Pki;
use super::{
    Cluster, Directory, Machine, container_runtime, control_plane, images, kube_proxy, kubeconfig,
    kubelet, program, stored, teardown,
};
use crate::{Lab, process, scale, until};

const EDGES: u8 = 2;
const PATIENCE: Duration = Duration::from_mins(1);
/// Written last: the cluster is ready.
const READY: &str = "ready.json";

impl Cluster {
    /// Makes a cluster that this process owns, up to Ready nodes. What fails half-way is dismantled; logs stay.
    pub fn bring_up(directory: &Directory) -> Result<Self> {
        if Owner::read(directory)?.and_then(Owner::handle).is_some() {
            let root = directory.root().display();
            bail!("a cluster runs in {root} already (cargo xtask cluster down)");
        }
        teardown::remove(directory)?;
        directory.make()?;
        let owner = Owner::claim(directory)?;
        Host::prepare(owner)?;
        process::adopt_orphans()?;
        let cluster = Self::make(directory).and_then(|cluster| {
            cluster.start_all()?;
            Ok(cluster)
        });
        if cluster.is_err() {
            teardown::dismantle(directory)?;
            process::reap_all();
        }
        cluster
    }

    fn make(directory: &Directory) -> Result<Self> {
        let mut lab = Lab::nat_with(EDGES)?;
        lab.add_worker()?;
        let names = lab.keep();
        let machines = Machine::all(directory, &lab, EDGES)?;
        let worker = Machine::worker(directory, &lab, EDGES)?;
        stored::write(directory, names, &machines, &worker)?;
        let pki = Pki::make(directory)?;
        kubeconfig::write_all(directory, &pki, machines.iter().chain([&worker]))?;
        Ok(Self::of(directory, lab, machines, worker))
    }

    fn start_all(&self) -> Result<()> {
        let (directory, control) = (self.directory(), self.control_plane());
        self.start(&control_plane::etcd(control))?;
        self.start(&control_plane::api_server(directory, control)?)?;
        for machine in self.machines() {
            self.start(&container_runtime::program(machine)?)?;
        }
        self.machines().iter().try_for_each(import_images)?;
        self.wait_for_api_server()?;
        self.start(&control_plane::controllers(directory, control)?)?;
        self.start(&control_plane::scheduler(directory, control)?)?;
        for machine in self.machines() {
            self.start_node(machine)?;
        }
        self.wait_for_nodes(&self.machines().iter().collect::<Vec<_>>())?;
        self.wait_for_service_account()?;
        self.directory().write(READY, &true)
    }

    /// Kubelet and kube-proxy of a machine whose containerd runs.
    pub(super) fn start_node(&self, machine: &Machine) -> Result<()> {
        self.start_kubelet(machine)?;
        wait_for_kubelet(machine)?;
        self.start(&kube_proxy::program(self.directory(), machine)?)
    }

    /// Waits until the API server says that it is ready.
    pub fn wait_for_api_server(&self) -> Result<()> {
        let address = SocketAddr::new(self.control_plane().addresses()[0], 6443);
        let control = self.lab().control();
        let listens = until("the API server listens", PATIENCE, || {
            let listens = control.run(|| TcpStream::connect(address)).is_ok();
            let runs = program::runs(self.directory(), API_SERVER)?;
            Ok((listens || !runs).then_some(listens))
        })?;
        if !listens {
            bail!(
                "the API server has ended; it said:\n{}",
                self.log_tail(API_SERVER)?
            );
        }
        let ready = || Ok(self.kubectl(["get", "--raw", "/readyz"]).ok());
        wait_until("the API server is ready", PATIENCE, ready).map(drop)
    }

    /// Without it no pod can be made.
    fn wait_for_service_account(&self) -> Result<()> {
        let there = || Ok(self.get("serviceaccount default").ok());
        wait_until("the default service account", PATIENCE, there).map(drop)
    }

    /// Removes the cluster and its files; for the process that owns it.
    pub fn remove(self) -> Result<()> {
        let removed = teardown::remove(self.directory());
        process::reap_all();
        removed
    }
}

/// What every pod needs, handed to containerd once it listens.
pub(super) fn import_images(machine: &Machine) -> Result<()> {
    let socket = container_runtime::socket(machine);
    until("containerd listens", PATIENCE, || {
        Ok(std::os::unix::net::UnixStream::connect(&socket).ok())
    })?;
    images::import_all(machine)
}

/// Kubelets of one kernel share the directory of their socket for device plugins, whatever their own is called: each
/// clears it before it listens there, and ends if another did so in between. So the next one waits until this one
/// listens.
fn wait_for_kubelet(machine: &Machine) -> Result<()> {
    let sockets = machine.launch("cat").arg("/proc/net/unix");
    until("the kubelet listens for device plugins", PATIENCE, || {
        let listed = sockets.start()?.succeed(PATIENCE)?;
        Ok(listed.contains(kubelet::DEVICE_PLUGINS).then_some(()))
    })
}

/// Waits until the cluster of `directory` is ready, as long as `alive` says that somebody still makes it.
pub fn wait_for_owner(directory: &Directory, mut alive: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + scale::patience(Duration::from_mins(5));
    while directory.read::<bool>(READY)?.is_none() {
        if !alive() {
            bail!("the cluster did not come up");
        }
        if Instant::now() > deadline {
            bail!("the cluster is not up after five minutes");
        }
        thread::sleep(Duration::from_millis(100));
    }
    Cluster::open(directory)
        .map(drop)
        .context("open the cluster that came up")
}
