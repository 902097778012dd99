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
}

/// One machine. Its name is its node's.
#[derive(Debug)]
pub struct Machine {
    facts: Facts,
    addresses: [IpAddr; 2],
    directory: PathBuf,
    cgroup: Cgroup,
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
        (0..=edges)
            .map(|number| Self::make(directory, lab, number))
            .collect()
    }

    fn make(directory: &Directory, lab: &Lab, number: u8) -> Result<Self> {
        let (name, role) = match number {
            0 => ("control-plane".to_owned(), Role::ControlPlane),
            edge => (format!("edge-{edge}"), Role::Edge),
        };
        let mut cgroup = Cgroup::new(&name)?;
        let mut programs = cgroup.child("programs")?;
        cgroup.keep();
        programs.keep();
        let namespace = namespace(lab, number);
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
        let addresses = match facts.number {
            0 => lab::CONTROL,
            number => {
                let edge = lab.edge(usize::from(number) - 1);
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

    /// 0 for the control plane, then the edges.
    pub(super) fn number(&self) -> u8 {
        self.facts.number
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
}

fn namespace(lab: &Lab, number: u8) -> &NetNs {
    match number {
        0 => lab.control(),
        edge => lab.edge(usize::from(edge) - 1).namespace(),
    }
}

/// Pods are routed, and a Service's address needs a route before kube-proxy's rules see the packet: `connect()` looks
/// for one first.
fn prepare_network(namespace: &NetNs, role: Role) -> Result<()> {
    namespace.sysctl("net.ipv4.ip_forward", "1")?;
    let way = match role {
        Role::ControlPlane => "dev eth0",
        Role::Edge => "via 10.78.0.1",
    };
    namespace
        .ip(&format!("route add {SERVICES} {way}"))
        .map(drop)
}
