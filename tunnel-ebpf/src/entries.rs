//! The keys and values of the maps.

use crate::{Address, Endpoint};

/// The slot of the `listeners` map that holds the socket for IPv4 (and v4-mapped) connects.
pub const LISTENER_V4: u32 = 0;
/// The slot of the `listeners` map that holds the socket for native IPv6 connects.
pub const LISTENER_V6: u32 = 1;

/// What a port means.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRule {
    /// The groups of nodes on which this port is tunnelled; see [`groups`].
    pub groups: u64,
    /// One of [`port_kind`].
    pub kind: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Kinds of [`PortRule`].
pub mod port_kind {
    /// Connects to nodes on this port are redirected.
    pub const TUNNELLED: u32 = 0;
    /// As above, and it is the redirect's own port: a client that dials the server directly loses
    /// what an earlier connect of the same socket left behind.
    pub const OWN: u32 = 1;
}

/// Groups of nodes: a connect is redirected when its port's and its node's groups intersect.
pub mod groups {
    /// Every node is in it, and so is every port that is tunnelled for all of them.
    pub const EVERY_NODE: u64 = 1;
    /// How many groups there are for ports of some nodes only, from bit 1 on.
    pub const SPECIAL: u32 = 63;
}

/// What is known of the node that owns an address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// The groups that the node is in; see [`groups`].
    pub groups: u64,
    /// One of [`standing`].
    pub standing: u32,
    /// One of [`policy`]: what a connect gets while the gate is closed.
    pub closed_gate: u32,
}

/// How a node stands with the server, as user space sees it. It counts while the gate is open; else
/// the [`policy`] does.
pub mod standing {
    /// Connects are redirected.
    pub const CAPTURE: u32 = 0;
    /// Connects pass untouched.
    pub const BYPASS: u32 = 1;
    /// Connects are refused.
    pub const REFUSE: u32 = 2;
}

/// What a connect to a node gets while the gate is closed.
pub mod policy {
    /// It passes untouched.
    pub const BYPASS: u32 = 0;
    /// It fails with `ECONNREFUSED`.
    pub const REFUSE: u32 = 1;
}

/// What the server tells the programs when it opens the gate.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where IPv4 connects are sent.
    pub redirect_v4: Address,
    /// Where native IPv6 connects are sent; unspecified: to `redirect_v4`.
    pub redirect_v6: Address,
    /// Sockets that carry this mark (`SO_MARK`) are never redirected; 0: none.
    pub mark: u32,
    /// The port of both redirect addresses, in host order; 0: the gate was never opened.
    pub port: u16,
    /// Always 0.
    pub reserved: u16,
    /// The gate closes when the heartbeat is older, in nanoseconds.
    pub heartbeat_max_age: u64,
    /// Names the server that opened the gate, so that one that it took over from does not close it.
    /// The listening socket cannot tell: it may have been handed over.
    pub owner: u64,
}

/// What a redirected client socket remembers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientDst {
    /// What the client asked for.
    pub original: Endpoint,
    /// What the connect was rewritten to: the memory is stale once the socket's peer is another.
    pub redirect: Endpoint,
}

/// A TCP connection as both of its ends name it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The end that connected.
    pub client: Endpoint,
    /// The end that accepts.
    pub server: Endpoint,
}

const _: () = assert!(size_of::<PortRule>() == 8 + 4 + 4);
const _: () = assert!(size_of::<NodeEntry>() == 8 + 4 + 4);
const _: () = assert!(size_of::<Config>() == 16 + 16 + 4 + 2 + 2 + 8 + 8);
const _: () = assert!(size_of::<ClientDst>() == 2 * size_of::<Endpoint>());
const _: () = assert!(size_of::<Tuple>() == 2 * size_of::<Endpoint>());

#[cfg(feature = "user")]
macro_rules! pod {
    ($($name:ident),+) => {$(
        // SAFETY: `repr(C)`, without padding (asserted above), any bytes are valid.
        unsafe impl aya::Pod for $name {}
    )+};
}

#[cfg(feature = "user")]
pod!(PortRule, NodeEntry, Config, ClientDst, Tuple);
