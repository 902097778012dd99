//! What `getpeername()` shows: clients that compare it with the address they dialled must not
//! notice the redirect.

use tunnel_ebpf::Endpoint;

use crate::{count::count, maps, sockaddr::SockAddr};

/// The original destination of a socket whose peer is where it was redirected to.
#[inline(always)]
pub(crate) fn original(address: &SockAddr<'_>, peer: &Endpoint) -> Option<Endpoint> {
    let dst = maps::client_dst_of(address.socket().cast())?;
    if dst.redirect.port != peer.port || dst.redirect.address != peer.address {
        return None;
    }
    count(|c| &mut c.peer_shown);
    Some(dst.original)
}
