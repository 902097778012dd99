//! How the server of a case finds out where a client meant to go.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, SocketAddrV4, TcpStream},
    os::fd::BorrowedFd,
};

use anyhow::{Context as _, Result, bail};
use socket2::SockRef;
use tunnel_user::{
    model::{GatePolicy, Node, PortSet, ServiceEndpoints, ServiceName, Snapshot, TunnelPort},
    redirect::{
        Heartbeat, Listeners, NodeMode, Options, OriginalDestinations, Redirect, ServiceTable,
        Table,
    },
};

use crate::{
    case::{Case, NODE, NODES, PORT, SERVICE, SERVICES_PORT},
    ruleset::{Rules, addresses},
    worker::Args,
};

pub(crate) enum Original {
    /// It went there.
    ItsOwn,
    /// Connection tracking knows.
    Tracked,
    /// Culvert's programs know, or, in a case where they let the connect pass, nobody.
    Redirected {
        originals: OriginalDestinations,
        heartbeat: Heartbeat,
        miss: bool,
    },
}

impl Original {
    /// Loads and attaches culvert's programs where the case is about them.
    pub(crate) fn new(case: &Case, args: &Args, redirected: BorrowedFd<'_>) -> Result<Self> {
        let (nodes, services) = match case.rules {
            Rules::Nothing | Rules::Conntrack => return Ok(Self::ItsOwn),
            Rules::Legacy(_) | Rules::Nft(_) | Rules::NftSet(_) => return Ok(Self::Tracked),
            Rules::Culvert(nodes) => (nodes, 0),
            Rules::Services(services) => (100_000, services),
        };
        let mut redirect = Redirect::install(&Options {
            cgroup: Some(args.cgroup.clone()),
            pin_root: args.pins.clone(),
            ..Options::default()
        })?;
        let nodes = table(nodes);
        redirect.apply(&nodes)?;
        if services > 0 {
            let services: Vec<_> = all_services(services).collect();
            redirect.apply_services(&ServiceTable::new(&services, &nodes).0)?;
        }
        redirect.open_gate(&Listeners {
            v4: Some(redirected),
            v6: None,
        })?;
        Ok(Self::Redirected {
            originals: redirect.original_destinations(),
            heartbeat: redirect.heartbeat(),
            miss: case.is_miss(),
        })
    }

    /// To be called before each measurement, which takes less than the programs' patience.
    pub(crate) fn keep_alive(&self) -> Result<()> {
        if let Self::Redirected { heartbeat, .. } = self {
            heartbeat.beat()?;
        }
        Ok(())
    }

    /// Where the client of an accepted connection meant to go.
    pub(crate) fn of(&self, server: &TcpStream) -> Result<SocketAddrV4> {
        let original = match self {
            Self::ItsOwn => server.local_addr()?,
            Self::Tracked => SockRef::from(server)
                .original_dst_v4()?
                .as_socket()
                .context("an address")?,
            Self::Redirected {
                originals, miss, ..
            } => match (originals.of(server)?, miss) {
                (Some(original), false) => original.0,
                (None, true) => server.local_addr()?,
                (found, _) => bail!("the programs know {found:?}"),
            },
        };
        match original {
            SocketAddr::V4(original) => Ok(original),
            SocketAddr::V6(original) => bail!("not an IPv4 address: {original}"),
        }
    }
}

/// So many, the first of which leads to the one node that is expected, and one more on a port of its own.
fn all_services(count: u32) -> impl Iterator<Item = ServiceEndpoints> {
    let service = |cluster: SocketAddrV4, endpoints: u32| ServiceEndpoints {
        cluster: cluster.into(),
        service: ServiceName::new("default", "service"),
        affinity: false,
        endpoints: addresses(*NODE.ip(), endpoints)
            .map(|node| SocketAddrV4::new(node, PORT).into())
            .collect(),
    };
    let first = std::iter::once(service(SERVICE, 1));
    let others = addresses(*SERVICE.ip(), count).skip(1);
    let others = others.map(move |ip| service(SocketAddrV4::new(ip, SERVICE.port()), 10));
    let last = service(SocketAddrV4::new(*SERVICE.ip(), SERVICES_PORT), 10);
    first.chain(others).chain([last])
}

fn table(nodes: u32) -> Table {
    let node = Node {
        name: "edge".parse().expect("a valid name"),
        addresses: addresses(NODES, nodes).map(IpAddr::from).collect(),
        extra_ports: PortSet::new(),
        closed_gate: None,
        admits: None,
    };
    let ports = TunnelPort::new(PORT).into_iter().collect();
    let capture = |_: &_| NodeMode::Capture;
    let snapshot = Snapshot::new([node], ports);
    Table::new(&snapshot, &BTreeSet::new(), GatePolicy::Bypass, capture).0
}
