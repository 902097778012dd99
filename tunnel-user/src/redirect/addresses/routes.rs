//! Routes and interfaces, as far as they say who is local.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
    },
};

use super::netlink::{LOOPBACK, Netlink};
use crate::model::Family;

/// Our number among those who add routes.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(0xc1);
/// The table that the kernel looks into first (`RT_TABLE_LOCAL` in `linux/rtnetlink.h`).
const LOCAL_TABLE: u8 = 255;
/// The table that is looked into where no policy rule says otherwise (`RT_TABLE_MAIN`).
const MAIN_TABLE: u32 = 254;

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) family: Family,
    /// It is in the main table, where no policy rule says otherwise.
    pub(super) is_main: bool,
    /// The least is preferred.
    pub(super) metric: u32,
    /// Where it leads; `None`: everywhere.
    pub(super) destination: Option<IpNet>,
    /// The router that it leads through.
    pub(super) gateway: Option<IpAddr>,
    /// The number of the interface.
    pub(super) link: Option<u32>,
    /// We added it.
    pub(super) ours: bool,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) is_loopback: bool,
    /// What made it; `None`: hardware.
    pub(super) kind: Option<InfoKind>,
    /// The bridge, bond or VRF that it belongs to.
    pub(super) master: Option<u32>,
}

impl Netlink {
    /// Every route of both families in every table.
    pub(super) async fn routes(&mut self) -> io::Result<Vec<Route>> {
        let mut routes = Vec::new();
        for request in [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ] {
            let request = self.handle.route().get(request).execute();
            let messages: Vec<RouteMessage> = self.answer(request.try_collect()).await?;
            routes.extend(messages.iter().flat_map(parse_routes));
        }
        Ok(routes)
    }

    /// Every interface.
    pub(super) async fn links(&mut self) -> io::Result<Vec<Link>> {
        let request = self.handle.link().get().execute();
        let messages: Vec<LinkMessage> = self.answer(request.try_collect()).await?;
        Ok(messages.iter().map(parse_link).collect())
    }

    /// Has this machine take what is sent to a network for its own.
    pub(super) async fn add_local_route(&mut self, net: IpNet) -> io::Result<()> {
        let message = self.local_route(net).await?;
        let request = self.handle.route().add(message).execute();
        self.answer(request).await
    }

    /// Takes such a route back.
    pub(super) async fn remove_local_route(&mut self, net: IpNet) -> io::Result<()> {
        let message = self.local_route(net).await?;
        let request = self.handle.route().del(message).execute();
        self.answer(request).await
    }

    async fn local_route(&mut self, net: IpNet) -> io::Result<RouteMessage> {
        let loopback = self.link(LOOPBACK).await?;
        let mut message = match net {
            IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .build(),
            IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .build(),
        };
        message.header.table = LOCAL_TABLE;
        message.header.kind = RouteType::Local;
        message.header.protocol = PROTOCOL;
        message.header.scope = if net.addr().is_ipv4() {
            RouteScope::Host
        } else {
            RouteScope::Universe
        };
        message.attributes.push(RouteAttribute::Oif(loopback));
        Ok(message)
    }
}

/// A route with several next hops counts as several.
fn parse_routes(message: &RouteMessage) -> Vec<Route> {
    let length = message.header.destination_prefix_length;
    let mut route = Route {
        family: if message.header.address_family == AddressFamily::Inet6 {
            Family::V6
        } else {
            Family::V4
        },
        is_main: table(message) == MAIN_TABLE,
        metric: 0,
        destination: None,
        gateway: None,
        link: None,
        ours: message.header.protocol == PROTOCOL && table(message) == u32::from(LOCAL_TABLE),
    };
    let mut hops = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                let net = ip(address).and_then(|ip| IpNet::new(ip, length).ok());
                route.destination = net.filter(|_| length != 0);
            }
            RouteAttribute::Gateway(address) => route.gateway = ip(address),
            RouteAttribute::Via(_) => route.gateway = Some(Ipv6Addr::UNSPECIFIED.into()),
            RouteAttribute::Oif(link) => route.link = Some(*link),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::MultiPath(next) => hops.extend(next.iter().cloned()),
            _ => {}
        }
    }
    if hops.is_empty() {
        return vec![route];
    }
    hops.iter()
        .map(|hop| Route {
            link: Some(hop.interface_index),
            gateway: hop.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Gateway(address) => ip(address),
                _ => None,
            }),
            ..route.clone()
        })
        .collect()
}

fn table(message: &RouteMessage) -> u32 {
    let table = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        });
    table.unwrap_or_else(|| message.header.table.into())
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn parse_link(message: &LinkMessage) -> Link {
    let mut link = Link {
        number: message.header.index,
        name: String::new(),
        is_loopback: message.header.flags.contains(LinkFlags::Loopback),
        kind: None,
        master: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Controller(master) => link.master = Some(*master),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.clone()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link
}
