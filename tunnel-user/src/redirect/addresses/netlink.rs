//! A conversation with the kernel over one netlink socket.

use std::{future::Future, io, net::IpAddr, pin::Pin};

use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        address::{
            AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
        },
        route::{RouteAttribute, RouteMessage},
    },
};

/// The interface that has the addresses which we add.
pub(super) const LOOPBACK: &str = "lo";
/// Our label of IPv4 addresses; the kernel wants the interface's name before the colon.
const LABEL: &str = "lo:culvert";
/// Our number among those who add IPv6 addresses, which have no labels. Kernels before 5.18 forget
/// it: what we added cannot be told from others' there.
const PROTOCOL: AddressProtocol = AddressProtocol::Other(0xc1);

/// Polls the socket while a request waits for its answer; nothing runs in between.
pub struct Netlink {
    connection: Pin<Box<dyn Future<Output = ()> + Send>>,
    pub(super) handle: Handle,
}

/// One address of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnAddress {
    pub(super) ip: IpAddr,
    /// The number of its interface.
    pub(super) link: u32,
    /// Reachable from elsewhere, and neither on its way in nor out.
    pub(super) usable: bool,
    /// Carries the mark of an address that we added.
    pub(super) ours: bool,
}

impl Netlink {
    pub(super) fn new() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self {
            connection: Box::pin(connection),
            handle,
        })
    }

    /// Every address of every interface.
    pub(super) async fn addresses(&mut self) -> io::Result<Vec<OwnAddress>> {
        let request = self.handle.address().get().execute();
        let messages: Vec<AddressMessage> = self.answer(request.try_collect()).await?;
        Ok(messages.iter().filter_map(own_address).collect())
    }

    /// The interfaces that default routes of one family lead to, the preferred one first.
    pub(super) async fn default_links(&mut self, v6: bool) -> io::Result<Vec<u32>> {
        let request = if v6 {
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build()
        } else {
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build()
        };
        let request = self.handle.route().get(request).execute();
        let routes: Vec<RouteMessage> = self.answer(request.try_collect()).await?;
        let mut links: Vec<(u32, u32)> = routes
            .iter()
            .filter(|route| route.header.destination_prefix_length == 0)
            .filter_map(metric_and_link)
            .collect();
        links.sort_unstable();
        Ok(links.into_iter().map(|(_, link)| link).collect())
    }

    /// The number of an interface.
    pub(super) async fn link(&mut self, name: &str) -> io::Result<u32> {
        let request = self.handle.link().get().match_name(name.to_owned());
        let link = self
            .answer(request.execute().try_collect::<Vec<_>>())
            .await?;
        let found = link.first().map(|link| link.header.index);
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no interface {name}")))
    }

    /// Adds an address of one host to the loopback interface, marked as ours. It is usable at once:
    /// nobody is asked whether another host has it.
    pub(super) async fn add(&mut self, address: IpAddr) -> io::Result<()> {
        let link = self.link(LOOPBACK).await?;
        let prefix = host_prefix(address);
        let mut request = self.handle.address().add(link, address, prefix);
        let message = request.message_mut();
        message.header.flags |= AddressHeaderFlags::Nodad;
        message.attributes.push(mark(address));
        self.answer(request.execute()).await
    }

    /// Removes an address of one host from the loopback interface.
    pub(super) async fn remove(&mut self, address: IpAddr) -> io::Result<()> {
        let link = self.link(LOOPBACK).await?;
        let mut message = AddressMessage::default();
        message.header.index = link;
        message.header.prefix_len = host_prefix(address);
        message.header.family = if address.is_ipv6() {
            rtnetlink::packet_route::AddressFamily::Inet6
        } else {
            rtnetlink::packet_route::AddressFamily::Inet
        };
        message.attributes.push(AddressAttribute::Local(address));
        let request = self.handle.address().del(message);
        self.answer(request.execute()).await
    }

    pub(super) async fn answer<T>(
        &mut self,
        request: impl Future<Output = Result<T, rtnetlink::Error>>,
    ) -> io::Result<T> {
        tokio::select! {
            answer = request => answer.map_err(system_error),
            () = &mut self.connection => Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the netlink socket was closed",
            )),
        }
    }
}

/// IPv4 has its own address in `Local`, as `Address` may be the peer's; IPv6 mostly has no `Local`.
fn own_address(message: &AddressMessage) -> Option<OwnAddress> {
    let attributes = &message.attributes;
    let local = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let address = attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    let unusable = AddressHeaderFlags::Tentative
        | AddressHeaderFlags::Dadfailed
        | AddressHeaderFlags::Deprecated;
    let ip = local.or(address)?;
    Some(OwnAddress {
        ip,
        ours: attributes.contains(&mark(ip)),
        link: message.header.index,
        usable: message.header.scope == AddressScope::Universe
            && !message.header.flags.intersects(unusable),
    })
}

fn metric_and_link(route: &RouteMessage) -> Option<(u32, u32)> {
    let mut metric = 0;
    let mut link = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(index) => link = Some(*index),
            _ => {}
        }
    }
    Some((metric, link?))
}

/// What tells an address that we added from all others.
fn mark(address: IpAddr) -> AddressAttribute {
    match address {
        IpAddr::V4(_) => AddressAttribute::Label(LABEL.to_owned()),
        IpAddr::V6(_) => AddressAttribute::Protocol(PROTOCOL),
    }
}

fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv6() { 128 } else { 32 }
}

/// The kernel's own error, where there is one.
fn system_error(error: rtnetlink::Error) -> io::Error {
    match &error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        _ => io::Error::other(error),
    }
}
