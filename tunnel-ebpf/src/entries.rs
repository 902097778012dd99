//! The keys and values of the maps.

use crate::{Address, Endpoint, Ranges};

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
    /// One of [`clients`].
    pub clients: u32,
}

/// Kinds of [`PortRule`].
pub mod port_kind {
    /// Connects to nodes on this port are redirected.
    pub const TUNNELLED: u32 = 0;
    /// As above, and it is the redirect's own port: a client that dials the server directly loses
    /// what an earlier connect of the same socket left behind.
    pub const OWN: u32 = 1;
}

/// Who may use a port, or the redirect at all.
pub mod clients {
    /// Every process of this machine, whatever its network namespace.
    pub const ALL: u32 = 0;
    /// Processes in the server's own network namespace.
    pub const OWN_NAMESPACE: u32 = 1;
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
    /// One of [`node_mode`].
    pub node_mode: u32,
    /// One of [`policy`]: what a connect gets while the gate is closed.
    pub closed_gate: u32,
    /// Which address of each range stands for this one; 0: none does.
    pub slot: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Which node's address a slot stands for. A slot outlives its node's entry: it is not given to
/// another while a connect may still be on its way to the former one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotEntry {
    /// The node's address.
    pub address: Address,
    /// When the node went, in nanoseconds of `CLOCK_MONOTONIC`; 0: it is there.
    pub retired_at: u64,
}

/// How a node stands with the server, as user space sees it. It counts while the gate is open; else
/// the [`policy`] does.
pub mod node_mode {
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
    /// Where IPv4 connects are sent that no range serves.
    pub redirect_v4: Address,
    /// Where native IPv6 connects are sent that no range serves; unspecified: all of them go where
    /// IPv4 goes.
    pub redirect_v6: Address,
    /// The addresses that stand for nodes.
    pub ranges: Ranges,
    /// The network namespace of the listeners, as `SO_NETNS_COOKIE` names it; 0: not known.
    pub own_netns: u64,
    /// Until then, in nanoseconds of `CLOCK_MONOTONIC`, connections to the redirect addresses are
    /// accepted without a note: a predecessor with other maps may have noted them.
    pub lenient_until: u64,
    /// Sockets that carry this mark (`SO_MARK`) are never redirected; 0: none.
    pub mark: u32,
    /// The port of both redirect addresses, in host order; 0: the gate was never opened.
    pub port: u16,
    /// One of [`clients`]: whose connects are captured at all.
    pub clients: u16,
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

/// What a connect that is on its way to a redirect address asked for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// What the client asked for.
    pub original: Endpoint,
    /// The client's network namespace; 0: the kernel does not tell (before 5.15).
    pub netns: u64,
    /// When it was noted, in nanoseconds of `CLOCK_MONOTONIC`.
    pub noted_at: u64,
    /// Not 0: clients of two namespaces have this tuple, and nobody can tell whose connection
    /// arrives.
    pub ambiguous: u64,
}

/// How connects of a network namespace other than the server's fare. Times are nanoseconds of
/// `CLOCK_MONOTONIC`.
///
/// No two fields that a program makes 0 are neighbours: the compiler would call `memset`, whose
/// arithmetic on pointers the verifier refuses without `CAP_PERFMON`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// One of [`scheme`].
    pub scheme: u64,
    /// When a SYN had to be repeated for the first time since one arrived; 0: none had.
    pub lost_since: u64,
    /// Since when the scheme is that.
    pub scheme_since: u64,
    /// Until then the gate is closed for this namespace; 0: it is not.
    pub closed_until: u64,
    /// Since when a connect has been on its way with none having arrived; 0: one has.
    pub doubted_since: u64,
    /// When a connect was sent to a range whose SYN has not left yet; 0: all have.
    pub attempted_at: u64,
}

/// How the original destination of a connect reaches the server.
pub mod scheme {
    /// The address that it is sent to stands for it.
    pub const RANGE: u64 = 1;
    /// It is noted under the connection's 4-tuple.
    pub const TUPLE: u64 = 2;
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
const _: () = assert!(size_of::<NodeEntry>() == 8 + 4 * 4);
const _: () = assert!(size_of::<SlotEntry>() == 16 + 8);
const _: () =
    assert!(size_of::<Config>() == 16 + 16 + size_of::<Ranges>() + 8 + 8 + 4 + 2 + 2 + 8 + 8);
const _: () = assert!(size_of::<Pending>() == size_of::<Endpoint>() + 3 * 8);
const _: () = assert!(size_of::<Namespace>() == 6 * 8);
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
pod!(
    PortRule, NodeEntry, SlotEntry, Config, ClientDst, Pending, Namespace, Tuple
);
