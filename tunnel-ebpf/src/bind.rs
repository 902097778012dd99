//! Who may bind an address that stands for a node: nobody.
//!
//! No socket has these addresses, which `steer` gives to the server. A local user who bound one could wait
//! there in `SYN_SENT` for a client's port, and be found before any lookup of listeners: both ends would
//! be connected, and the client take him for the node.

use tunnel_ebpf::Endpoint;

use crate::{maps, sockaddr::SockAddr};

/// Whether a socket of the server's network namespace asks for such an address.
#[inline(always)]
pub(crate) fn is_refused(address: &SockAddr<'_>, local: &Endpoint) -> bool {
    let Some(config) = maps::settings() else {
        return false;
    };
    let ranges = &config.ranges;
    let stands_for_node = ranges.host.slot(&local.address).is_some()
        || ranges.pods.slot(&local.address).is_some()
        || ranges.v6.slot(&local.address).is_some();
    stands_for_node && address.netns() == config.own_netns
}
