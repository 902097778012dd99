//! Three addresses meet in every accepted connection, and mixing them up sends bytes to the wrong
//! node; so each has its own type.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Where a client's connection came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerAddr(pub SocketAddr);

/// The address of ours on which a connection arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalAddr(pub SocketAddr);

/// The address and port that the client asked for before the redirect rewrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OriginalDst(pub SocketAddr);

impl PeerAddr {
    /// The peer of an accepted connection: a dual-stack listener shows IPv4 as v4-mapped IPv6.
    pub fn of(accepted: SocketAddr) -> Self {
        Self(SocketAddr::new(
            accepted.ip().to_canonical(),
            accepted.port(),
        ))
    }
}

/// What disqualifies an address from being a node's: it means something else on every machine, or
/// nothing to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnfitAddress {
    /// 127.0.0.0/8, `::1`.
    Loopback,
    /// 0.0.0.0, `::`.
    Unspecified,
    /// 224.0.0.0/4, `ff00::/8`.
    Multicast,
    /// 169.254.0.0/16, `fe80::/10`.
    LinkLocal,
    /// 255.255.255.255.
    Broadcast,
}

impl UnfitAddress {
    /// Why no node can have this address; `None` if one can.
    pub fn check(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            address if address.is_loopback() => Some(Self::Loopback),
            address if address.is_unspecified() => Some(Self::Unspecified),
            address if address.is_multicast() => Some(Self::Multicast),
            IpAddr::V4(v4) if v4.is_link_local() => Some(Self::LinkLocal),
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(Self::LinkLocal),
            IpAddr::V4(v4) if v4.is_broadcast() => Some(Self::Broadcast),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    }
}

impl fmt::Display for UnfitAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::Unspecified => "the unspecified address",
            Self::Multicast => "a multicast address",
            Self::LinkLocal => "a link-local address",
            Self::Broadcast => "the broadcast address",
        })
    }
}

macro_rules! display_as_socket_addr {
    ($($name:ident),+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

display_as_socket_addr!(PeerAddr, LocalAddr, OriginalDst);
