//! A machine of the cluster: a namespace for its network, a cgroup for its processes, a directory for its disk.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Directory;
use crate::{Cgroup, Lab, Launch, NetNs, bpffs, cgroup, lab};

/// Services' addresses.
pub(super) const SERVICES: &str = "10.96.0.0/16";
/// The address of the Service `kubernetes`: the first of [`SERVICES`].
pub(super) const KUBERNETES_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// What a machine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Runs the API server; the edge is out of its reach.
    ControlPlane,
    /// Behind the NAT.
    Edge,
    /// In the cloud, beside the control plane; the edge is out of its reach as well.
    Worker,
}

/// One machine. Its name is its node's.
#[derive(Debug)]
pub struct Machine {
    facts: Facts,
    addresses: [IpAddr; 2],
    directory: PathBuf,
    cgroup: Cgroup,
    /// Below that: what is started on it, other than by its kubelet.
    programs: Cgroup,
}

/// What another process needs to find a machine again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Facts {
    name: String,
    role: Role,
    number: u8,
    namespace: PathBuf,
    cgroup: PathBuf,
    programs: PathBuf,
}

impl Facts {
    pub(super) fn into_name(self) -> String {
        self.name
    }
}

impl Machine {
    /// Makes the control plane (number 0) and one machine for each edge of the lab.
    pub(super) fn all(directory: &Directory, lab: &Lab, edges: u8) -> Result<Vec<Self>> {
        let control = Self::make(directory, lab, "control-plane", Role::ControlPlane, 0);
        let edge = |number| {
            let name = format!("edge-{number}");
            Self::make(directory, lab, &name, Role::Edge, number)
        };
        std::iter::once(control)
            .chain((1..=edges).map(edge))
            .collect()
    }

    /// Makes the worker, which gets the number after the edges'.
    pub(super) fn worker(directory: &Directory, lab: &Lab, edges: u8) -> Result<Self> {
        Self::make(directory, lab, "worker-1", Role::Worker, edges + 1)
    }

    fn make(directory: &Directory, lab: &Lab, name: &str, role: Role, number: u8) -> Result<Self> {
        let name = name.to_owned();
        let mut cgroup = Cgroup::new(&name)?;
        let mut programs = cgroup.child("programs")?;
        cgroup.keep();
        programs.keep();
        let namespace = namespace(lab, role, number);
        prepare_network(namespace, role)?;
        super::directory::make(&directory.machine(&name))?;
        let facts = Facts {
            name,
            role,
            number,
            namespace: namespace.path().to_owned(),
            cgroup: cgroup.path().to_owned(),
            programs: programs.path().to_owned(),
        };
        Ok(Self::of(directory, lab, facts))
    }

    /// A machine that another process made.
    pub(super) fn of(directory: &Directory, lab: &Lab, facts: Facts) -> Self {
        let addresses = match facts.role {
            Role::ControlPlane => lab::CONTROL,
            Role::Worker => lab::WORKER,
            Role::Edge => {
                let edge = lab.edge(usize::from(facts.number) - 1);
                [edge.ipv4().into(), edge.ipv6().into()]
            }
        };
        Self {
            addresses,
            directory: directory.machine(&facts.name),
            cgroup: Cgroup::of_another(facts.cgroup.clone()),
            programs: Cgroup::of_another(facts.programs.clone()),
            facts,
        }
    }

    pub(super) fn facts(&self) -> Facts {
        self.facts.clone()
    }

    /// Its name, and its node's.
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// What it is for.
    pub fn role(&self) -> Role {
        self.facts.role
    }

    /// IPv4, then IPv6.
    pub fn addresses(&self) -> [IpAddr; 2] {
        self.addresses
    }

    /// The cgroup2 directory of everything that runs on it, pods included: what a redirect is attached to.
    pub fn cgroup(&self) -> &Path {
        self.cgroup.path()
    }

    /// Where what Culvert loads into the kernel for it is pinned: the name makes it the cluster's, which removes it.
    pub fn pin_root(&self) -> Result<PathBuf> {
        let below = self.cgroup().strip_prefix(cgroup::mount()?)?;
        Ok(Path::new(bpffs::MOUNT).join(below))
    }

    /// Its disk.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A program about to be started on it.
    pub fn launch(&self, program: impl AsRef<Path>) -> Launch {
        Launch::within(&self.facts.namespace, program).cgroup(&self.programs)
    }

    /// Ends everything that runs on it, pods included.
    pub(super) fn kill_all(&self) -> Result<()> {
        let below = self.cgroup().strip_prefix(cgroup::mount()?)?;
        for hierarchy in cgroup::hierarchies()? {
            cgroup::clear(&hierarchy.join(below), self.programs.path());
        }
        Ok(())
    }
}

/// What its pods have their addresses of.
pub(super) fn pod_range(machine: &Machine) -> String {
    format!("10.244.{}.0/24", machine.facts.number)
}

fn namespace(lab: &Lab, role: Role, number: u8) -> &NetNs {
    match role {
        Role::ControlPlane => lab.control(),
        Role::Worker => lab.worker(),
        Role::Edge => lab.edge(usize::from(number) - 1).namespace(),
    }
}

/// Pods are routed, and a Service's address needs a route before kube-proxy's rules see the packet: `connect()` looks
/// for one first.
fn prepare_network(namespace: &NetNs, role: Role) -> Result<()> {
    namespace.sysctl("net.ipv4.ip_forward", "1")?;
    let way = match role {
        Role::ControlPlane => "dev eth0".to_owned(),
        Role::Edge => "via 10.78.0.1".to_owned(),
        Role::Worker => format!("via {}", lab::WORKERS_ROUTER[0]),
    };
    namespace
        .ip(&format!("route add {SERVICES} {way}"))
        .map(drop)
}
