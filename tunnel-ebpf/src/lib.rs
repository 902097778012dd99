//! The memory that the kernel programs and user space share: map names, keys and values.
//!
//! Byte order is decided here, once: an address is 16 octets in network order, IPv4 in its
//! v4-mapped form (`::ffff:a.b.c.d`); a port is a number in host order. Every type is `repr(C)`
//! without implicit padding, and `bpftool map dump` shows its field names.
#![no_std]
#![expect(
    unsafe_code,
    reason = "addresses are moved by words, and types vouch for their memory layout"
)]

mod address;
mod counters;
mod entries;
mod ranges;
mod service_entries;

pub use address::{Address, Endpoint};
pub use counters::{Counters, ServiceCounters};
pub use entries::{
    ClientDst, Config, LISTENER_V4, LISTENER_V6, Namespace, NodeEntry, Pending, PortRule,
    SlotEntry, Tuple, clients, groups, node_mode, policy, port_kind, scheme,
};
pub use ranges::{Range, Ranges};
pub use service_entries::{
    Backend, MAX_BACKENDS, MAX_SERVICES, SERVICE_PORT_WORDS, ServiceEntry, affinity_of,
    backend_key, chosen, service_flags, service_port_bit, service_port_word,
};

/// The version of everything in this crate. Objects of different versions never share a map: each
/// pins its maps under a directory of its own. A map that is added, beside others that stay as they are, is no other
/// version: programs that do not know it leave it alone.
pub const ABI: u32 = 2;

/// How many nodes' addresses the redirect can hold.
pub const MAX_NODES: usize = 131_072;
/// How many tunnelled ports the redirect can hold, with one to spare for the redirect's own.
pub const MAX_PORTS: usize = 1_024;
/// How many connects may be noted between their SYN and the server's accept.
pub const MAX_PENDING: usize = 65_536;
/// After this many nanoseconds a note is of no use: no SYN is repeated for longer with the kernel's
/// defaults (`tcp_syn_retries`).
pub const OBSOLETE_NOTE: u64 = 180 * 1_000_000_000;
/// How many other network namespaces are remembered; the one that connected longest ago is forgotten
/// first.
pub const MAX_NAMESPACES: usize = 4_096;
/// How many of this machine's own addresses can be told apart from others. kube-proxy's IPVS mode gives the
/// machine one for each Service.
pub const MAX_OWN_ADDRESSES: usize = 65_536;
/// How many of its interfaces may lead to other machines.
pub const MAX_UPLINKS: usize = 1_024;

/// The maps' names; the kernel keeps 15 characters.
pub mod maps {
    /// `HASH` u16 → [`PortRule`](crate::PortRule): which ports are tunnelled.
    pub const PORTS: &str = "ports";
    /// `HASH` [`Address`](crate::Address) → [`NodeEntry`](crate::NodeEntry).
    pub const NODES: &str = "nodes";
    /// `HASH` u32 → [`SlotEntry`](crate::SlotEntry).
    pub const SLOTS: &str = "slots";
    /// `HASH` [`Address`](crate::Address) → u64: addresses of the server's network namespace.
    pub const OWN_ADDRESSES: &str = "own_addresses";
    /// `HASH` u32 → u64: the numbers of the interfaces by which other machines are reached.
    pub const UPLINKS: &str = "uplinks";
    /// `LRU_HASH` u64 → [`Namespace`](crate::Namespace), by `SO_NETNS_COOKIE`.
    pub const NAMESPACES: &str = "namespaces";
    /// `ARRAY[1]` of [`Config`](crate::Config).
    pub const CONFIG: &str = "config";
    /// `ARRAY[1]` of u64: when the server last showed life, `CLOCK_MONOTONIC` nanoseconds.
    pub const HEARTBEAT: &str = "heartbeat";
    /// `SOCKMAP[2]`: the server's listening sockets. The kernel empties a slot when its socket
    /// dies; user space reads the socket's cookie from it.
    pub const LISTENERS: &str = "listeners";
    /// `SK_STORAGE` of [`ClientDst`](crate::ClientDst), on redirected client sockets.
    pub const CLIENT_DST: &str = "client_dst";
    /// `SK_STORAGE` of [`Endpoint`](crate::Endpoint), on the server's accepted sockets.
    pub const ACCEPTED_DST: &str = "accepted_dst";
    /// `HASH` [`Tuple`](crate::Tuple) → [`Pending`](crate::Pending): connects under way.
    pub const PENDING_DST: &str = "pending_dst";
    /// `PERCPU_ARRAY[1]` of [`Counters`](crate::Counters).
    pub const COUNTERS: &str = "counters";
    /// `ARRAY[1024]` of u64: a bit for each port that some Service in `services` has.
    pub const SERVICE_PORTS: &str = "service_ports";
    /// `HASH` [`Endpoint`](crate::Endpoint) → [`ServiceEntry`](crate::ServiceEntry).
    pub const SERVICES: &str = "services";
    /// `HASH` [`backend_key`](crate::backend_key) → [`Backend`](crate::Backend).
    pub const BACKENDS: &str = "backends";
    /// `ARRAY[2]` of u64: the servers whose Services these are, as [`Config`](crate::Config) names its owner: who wrote
    /// last, and from whom it takes over. While another has opened the gate, which may know of no Services, they are
    /// those of a time that is over.
    pub const SERVICE_OWNERS: &str = "service_owners";
    /// `SK_STORAGE` of [`ClientDst`](crate::ClientDst), on client sockets that dialled a Service: that, and where it
    /// led them.
    pub const SERVICE_DST: &str = "service_dst";
    /// `PERCPU_ARRAY[1]` of [`ServiceCounters`](crate::ServiceCounters).
    pub const SERVICE_COUNTS: &str = "service_counts";

    /// Every map that is pinned and outlives the server.
    pub const ALL: [&str; 19] = [
        PORTS,
        NODES,
        SLOTS,
        OWN_ADDRESSES,
        UPLINKS,
        NAMESPACES,
        CONFIG,
        HEARTBEAT,
        LISTENERS,
        CLIENT_DST,
        ACCEPTED_DST,
        PENDING_DST,
        COUNTERS,
        SERVICE_PORTS,
        SERVICES,
        BACKENDS,
        SERVICE_OWNERS,
        SERVICE_DST,
        SERVICE_COUNTS,
    ];
}

/// The programs' names.
pub mod programs {
    /// `connect()` on an IPv4 socket.
    pub const CONNECT4: &str = "connect4";
    /// `connect()` on an IPv6 socket, v4-mapped addresses included.
    pub const CONNECT6: &str = "connect6";
    /// `bind()` of an IPv4 socket.
    pub const BIND4: &str = "bind4";
    /// `bind()` of an IPv6 socket, v4-mapped addresses included.
    pub const BIND6: &str = "bind6";
    /// `getpeername()` on an IPv4 socket.
    pub const GETPEERNAME4: &str = "getpeername4";
    /// `getpeername()` on an IPv6 socket.
    pub const GETPEERNAME6: &str = "getpeername6";
    /// The TCP events that carry an original destination from the client's socket to ours.
    pub const HANDOVER: &str = "handover";

    /// Which listening socket takes a connection to an address that stands for a node. Attached to
    /// the server's network namespace, the others to the cgroup.
    pub const STEER: &str = "steer";

    /// Every program, in the order in which they are attached: what keeps others from addresses that stand
    /// for nodes, what receives redirected connections, and what hands the original destination over, must
    /// run before anything is redirected.
    pub const ALL: [&str; 8] = [
        BIND4,
        BIND6,
        STEER,
        HANDOVER,
        GETPEERNAME4,
        GETPEERNAME6,
        CONNECT4,
        CONNECT6,
    ];
}

/// Read-only global of the object: 0 where the kernel lacks `bpf_set_retval` (before 5.18), so that
/// the verifier drops the call. Refused connects then fail with `EPERM` instead of `ECONNREFUSED`.
pub const SET_RETVAL_GLOBAL: &str = "CAN_SET_RETVAL";

/// Read-only global of the object: 0 where programs of TCP events cannot ask for their network
/// namespace (before 5.15).
pub const NETNS_COOKIE_GLOBAL: &str = "CAN_NETNS_COOKIE";

/// Read-only global of the object: 0 where a socket lookup does not know by which interface a packet
/// came (before 5.17); the ranges are not used there.
pub const INGRESS_GLOBAL: &str = "CAN_INGRESS";
