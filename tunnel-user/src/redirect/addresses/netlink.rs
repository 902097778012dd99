//! A conversation with the kernel over one netlink socket.

use std::{future::Future, io, net::IpAddr, pin::Pin};

use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
        route::{RouteAttribute, RouteMessage},
    },
};

/// Polls the socket while a request waits for its answer; nothing runs in between.
pub(super) struct Netlink {
    connection: Pin<Box<dyn Future<Output = ()> + Send>>,
    handle: Handle,
}

/// One address of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnAddress {
    pub(super) ip: IpAddr,
    /// The number of its interface.
    pub(super) link: u32,
    /// Reachable from elsewhere, and neither on its way in nor out.
    pub(super) usable: bool,
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

    /// Adds an address of one host to an interface. It is usable at once: nobody is asked whether
    /// another host has it.
    pub(super) async fn add(&mut self, link: u32, address: IpAddr) -> io::Result<()> {
        let prefix = host_prefix(address);
        let mut request = self.handle.address().add(link, address, prefix);
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        self.answer(request.execute()).await
    }

    /// Removes an address of one host from an interface.
    pub(super) async fn remove(&mut self, link: u32, address: IpAddr) -> io::Result<()> {
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

    async fn answer<T>(
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
    Some(OwnAddress {
        ip: local.or(address)?,
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
