//! Networks of our own, sealed: no namespace has a default route or a link to the machine's network, so a
//! connect that nobody redirects ends in ENETUNREACH and never on a wire.
//!
//! ```text
//!   pod 10.79.1.2 ──┐
//!                   control 10.77.0.1 ── .254 router 10.78.0.1 ── edge 10.78.0.11, .12, ...
//!                   fd00:77::1                masquerades            fd00:78::11, ::12, ...
//!                   (clusters) worker 10.77.1.2 ──┘
//! ```
//! The edge reaches the control plane through the NAT. The control plane has no route to the edge.

mod router;
mod seal;
mod worker;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::NetNs;
use router::Router;
use worker::Worker;
pub(crate) use worker::{WORKER, WORKERS_ROUTER};

/// The control plane's addresses.
pub const CONTROL: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1)),
];

/// The router's, as the control plane sees it.
pub(crate) const ROUTER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 0x254)),
];

/// One sealed network. Programs run in its namespaces only.
#[derive(Debug)]
pub struct Lab {
    control: NetNs,
    pods: Vec<Pod>,
    islands: Vec<NetNs>,
    edges: Vec<Edge>,
    router: Option<Router>,
    worker: Option<Worker>,
}

/// The namespaces of a lab with edges, by name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LabNames {
    control: String,
    router: String,
    edges: Vec<String>,
    worker: Option<String>,
}

/// An edge node behind the NAT.
#[derive(Debug)]
pub struct Edge {
    namespace: NetNs,
    number: u8,
}

/// A namespace whose only way leads to the control plane's own addresses.
#[derive(Debug)]
pub struct Pod {
    namespace: NetNs,
    number: u8,
}

impl Lab {
    /// A control plane alone: its addresses sit on the loopback interface and it has no routes at all.
    pub fn alone() -> Result<Self> {
        let control = NetNs::new("control")?;
        for address in CONTROL {
            control.ip(&format!("addr add {address} dev lo{}", no_dad(address)))?;
        }
        Self {
            control,
            pods: Vec::new(),
            islands: Vec::new(),
            edges: Vec::new(),
            router: None,
            worker: None,
        }
        .sealed()
    }

    /// Control plane, router and one edge node.
    pub fn nat() -> Result<Self> {
        Self::nat_with(1)
    }

    /// Control plane, router and `edges` edge nodes.
    pub fn nat_with(edges: u8) -> Result<Self> {
        let control = NetNs::new("control")?;
        let router = Router::new(&control)?;
        let edges = (0..edges)
            .map(|number| {
                let edge = Edge {
                    namespace: NetNs::new(&format!("edge{number}"))?,
                    number,
                };
                router.join(&edge).map(|()| edge)
            })
            .collect::<Result<_>>()?;
        Self {
            control,
            pods: Vec::new(),
            islands: Vec::new(),
            edges,
            router: Some(router),
            worker: None,
        }
        .sealed()
    }

    /// The lab that another process made and will remove.
    pub(crate) fn of_another(namespaces: &LabNames) -> Result<Self> {
        let edges = (0..).zip(&namespaces.edges).map(|(number, name)| {
            Ok(Edge {
                namespace: NetNs::of_another(name)?,
                number,
            })
        });
        Ok(Self {
            control: NetNs::of_another(&namespaces.control)?,
            pods: Vec::new(),
            islands: Vec::new(),
            edges: edges.collect::<Result<_>>()?,
            router: Some(Router::of_another(NetNs::of_another(&namespaces.router)?)),
            worker: namespaces
                .worker
                .as_deref()
                .map(Worker::of_another)
                .transpose()?,
        })
    }

    /// Leaves it to the sweep after this process, and tells its names to whoever else works in it.
    pub(crate) fn keep(&mut self) -> LabNames {
        self.control.keep();
        let edges = self.edges.iter_mut().map(|edge| &mut edge.namespace);
        let router = self.router.iter_mut().map(Router::namespace_mut);
        let worker = self.worker.iter_mut().map(Worker::namespace_mut);
        edges.chain(router).chain(worker).for_each(NetNs::keep);
        LabNames {
            control: self.control.name().to_owned(),
            router: self.router().name().to_owned(),
            edges: self
                .edges
                .iter()
                .map(|edge| edge.namespace.name().to_owned())
                .collect(),
            worker: self
                .worker
                .as_ref()
                .map(|worker| worker.namespace().name().to_owned()),
        }
    }

    /// Adds a machine of the cloud, which has no way to the edge either.
    pub(crate) fn add_worker(&mut self) -> Result<()> {
        self.worker = Some(Worker::new(self.with_router())?);
        self.check()
    }

    /// Adds a pod beside the control plane; it reaches the control plane's addresses, and what a server
    /// there routes to itself, as pods do that send everything to their node.
    pub fn add_pod(&mut self) -> Result<&Pod> {
        let pod = self.add_confined_pod()?.number;
        let pod = &self.pods[usize::from(pod - 1)];
        for (net, router) in [
            ("198.18.0.0/15", format!("10.79.{}.1", pod.number)),
            (
                "fd63:756c:7665:7274::/64",
                format!("fd00:79:{}::1", pod.number),
            ),
        ] {
            pod.namespace.ip(&format!("route add {net} via {router}"))?;
        }
        Ok(pod)
    }

    /// Adds a pod that reaches the control plane's addresses and nothing else.
    pub fn add_confined_pod(&mut self) -> Result<&Pod> {
        let number = u8::try_from(self.pods.len() + 1)?;
        let pod = Pod {
            namespace: NetNs::new(&format!("pod{number}"))?,
            number,
        };
        pod.join(&self.control)?;
        self.pods.push(pod);
        self.check()?;
        Ok(&self.pods[usize::from(number - 1)])
    }

    /// Adds a namespace with no link to any other, whose owner gives it what addresses it likes.
    pub fn add_island(&mut self, addresses: &[IpAddr]) -> Result<&NetNs> {
        let island = NetNs::new(&format!("island{}", self.islands.len() + 1))?;
        island.ip("link set lo up")?;
        for address in addresses {
            let length = if address.is_ipv6() { 128 } else { 32 };
            let no_dad = no_dad(*address);
            island.ip(&format!("addr add {address}/{length} dev lo{no_dad}"))?;
        }
        self.islands.push(island);
        self.check()?;
        Ok(&self.islands[self.islands.len() - 1])
    }

    /// The island of that number, from 0.
    pub fn island(&self, number: usize) -> &NetNs {
        &self.islands[number]
    }

    /// The control plane's namespace.
    pub fn control(&self) -> &NetNs {
        &self.control
    }

    /// The edge node of that number, from 0.
    pub fn edge(&self, number: usize) -> &Edge {
        &self.edges[number]
    }

    /// The pod of that number, from 0.
    pub fn pod(&self, number: usize) -> &Pod {
        &self.pods[number]
    }

    /// The namespace of the cloud's other machine.
    pub fn worker(&self) -> &NetNs {
        let worker = self.worker.as_ref();
        worker.expect("only clusters have a worker").namespace()
    }

    /// The router's namespace.
    pub fn router(&self) -> &NetNs {
        self.with_router().namespace()
    }

    /// Lets every packet from and to the edge vanish, as a dead mobile link does: no error, no reset.
    pub fn black_hole(&self, edge: usize) -> Result<()> {
        self.with_router().black_hole(&self.edges[edge])
    }

    /// Pulls the edge's cable: its link is down.
    pub fn unplug(&self, edge: usize) -> Result<()> {
        self.with_router().unplug(&self.edges[edge])
    }

    /// Ends [`Self::black_hole`] and [`Self::unplug`].
    pub fn restore(&self, edge: usize) -> Result<()> {
        self.with_router().restore(&self.edges[edge])
    }

    fn with_router(&self) -> &Router {
        self.router
            .as_ref()
            .expect("this lab was made without edges: use Lab::nat")
    }

    fn namespaces(&self) -> impl Iterator<Item = &NetNs> {
        let router = self.router.iter().map(Router::namespace);
        let edges = self.edges.iter().map(Edge::namespace);
        std::iter::once(&self.control)
            .chain(router)
            .chain(edges)
            .chain(self.pods.iter().map(Pod::namespace))
            .chain(self.worker.iter().map(Worker::namespace))
            .chain(&self.islands)
    }

    fn sealed(self) -> Result<Self> {
        self.check()?;
        Ok(self)
    }

    /// Refuses a network with a way out.
    pub fn check(&self) -> Result<()> {
        seal::check(&self.namespaces().collect::<Vec<_>>())
    }
}

impl Edge {
    /// Its namespace.
    pub fn namespace(&self) -> &NetNs {
        &self.namespace
    }

    /// Its IPv4 address, 10.78.0.11 for the first.
    pub fn ipv4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 78, 0, 11 + self.number)
    }

    /// Its IPv6 address, `fd00:78::11` for the first.
    pub fn ipv6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x78, 0, 0, 0, 0, 0, 0x11 + u16::from(self.number))
    }
}

impl Pod {
    /// Its namespace.
    pub fn namespace(&self) -> &NetNs {
        &self.namespace
    }

    /// Its IPv4 address, 10.79.1.2 for the first.
    pub fn ipv4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 79, self.number, 2)
    }

    fn join(&self, control: &NetNs) -> Result<()> {
        let (number, there) = (self.number, format!("pod{}", self.number));
        join(&self.namespace, "eth0", control, &there)?;
        control.ip(&format!("addr add 10.79.{number}.1/24 dev {there}"))?;
        control.ip(&format!(
            "addr add fd00:79:{number}::1/64 dev {there} nodad"
        ))?;
        self.namespace
            .ip(&format!("addr add {}/24 dev eth0", self.ipv4()))?;
        self.namespace
            .ip(&format!("addr add fd00:79:{number}::2/64 dev eth0 nodad"))?;
        self.namespace
            .ip(&format!("route add {}/32 via 10.79.{number}.1", CONTROL[0]))?;
        self.namespace.ip(&format!(
            "route add {}/128 via fd00:79:{number}::1",
            CONTROL[1]
        ))?;
        Ok(())
    }
}

/// A cable between two namespaces; neither end ever is in the machine's own network.
fn join(one: &NetNs, one_end: &str, other: &NetNs, other_end: &str) -> Result<()> {
    crate::command::run_line(&format!(
        "ip link add {one_end} netns {} type veth peer name {other_end} netns {}",
        one.name(),
        other.name()
    ))?;
    one.ip(&format!("link set {one_end} up"))?;
    other.ip(&format!("link set {other_end} up")).map(drop)
}

/// Without duplicate address detection an IPv6 address is usable at once.
fn no_dad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}
