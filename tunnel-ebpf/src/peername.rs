//! What `getpeername()` shows: clients that compare it with the address they dialled must not
//! notice the redirect.

use tunnel_ebpf::{Config, Endpoint};

use crate::{count::count, maps, sockaddr::SockAddr};

/// The original destination of a socket whose peer is where it was redirected to: of one that dialled a Service, that.
/// kube-proxy's translation shows no other either.
#[inline(always)]
pub(crate) fn original(address: &SockAddr<'_>, peer: &Endpoint) -> Option<Endpoint> {
    if let Some(dst) = maps::service_dst_of(address.socket().cast())
        && dst.redirect.port == peer.port
        && dst.redirect.address == peer.address
    {
        count(|c| &mut c.peer_shown);
        return Some(dst.original);
    }
    if let Some(config) = maps::settings()
        && let Some(slot) = slot(address, peer, config)
    {
        let node = maps::slot(slot)?;
        count(|c| &mut c.peer_shown);
        return Some(Endpoint::new(node, peer.port()));
    }
    let dst = maps::client_dst_of(address.socket().cast())?;
    if dst.redirect.port != peer.port || dst.redirect.address != peer.address {
        return None;
    }
    count(|c| &mut c.peer_shown);
    Some(dst.original)
}

/// The slot that the peer's address stands for. In other namespaces than the server's, the host's range
/// is ordinary loopback.
#[inline(always)]
fn slot(address: &SockAddr<'_>, peer: &Endpoint, config: &Config) -> Option<u32> {
    let ranges = &config.ranges;
    let slot = match ranges.host.slot(&peer.address) {
        Some(slot) if address.netns() == config.own_netns => Some(slot),
        Some(_) => None,
        None => match ranges.pods.slot(&peer.address) {
            None => ranges.v6.slot(&peer.address),
            slot => slot,
        },
    };
    slot.filter(|slot| *slot != 0)
}
