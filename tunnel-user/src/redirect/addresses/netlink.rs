//! A conversation with the kernel over one netlink socket.

use std::{future::Future, io, net::IpAddr, pin::Pin};

use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle,
    packet_route::address::{
        AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
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
    pub(super) use_to_others: UseToOthers,
    /// Not the first of its network; of IPv6: temporary, another will replace it soon. The kernel has one bit for both
    /// (`linux/if_addr.h`).
    pub(super) is_secondary: bool,
    /// Without a network.
    pub(super) is_host: bool,
    /// Carries the mark of an address that we added.
    pub(super) ours: bool,
}

/// Whether other machines can use an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UseToOthers {
    /// They can.
    Preferred,
    /// They should not begin to: its preferred lifetime is over.
    Deprecated,
    /// They cannot: its scope is narrower, or it is not known yet to be nobody else's, or it is somebody else's.
    None,
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
    let ip = local.or(address)?;
    let flags = message.header.flags;
    let unusable = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
    let is_global = message.header.scope == AddressScope::Universe;
    Some(OwnAddress {
        ip,
        link: message.header.index,
        use_to_others: if !is_global || flags.intersects(unusable) {
            UseToOthers::None
        } else if flags.contains(AddressHeaderFlags::Deprecated) {
            UseToOthers::Deprecated
        } else {
            UseToOthers::Preferred
        },
        is_secondary: flags.contains(AddressHeaderFlags::Secondary),
        is_host: message.header.prefix_len == host_prefix(ip),
        ours: attributes.contains(&mark(ip)),
    })
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
