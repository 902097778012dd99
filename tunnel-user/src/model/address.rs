//! Three addresses meet in every accepted connection, and mixing them up sends bytes to the wrong
//! node; so each has its own type.

use std::{fmt, net::SocketAddr};

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
