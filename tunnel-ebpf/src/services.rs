//! Connects to Services with nodes among their endpoints: one endpoint is chosen, as kube-proxy would choose it. But
//! that translates packets, after the connect has passed here as one to nobody's address, and no route leads to a node.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use tunnel_ebpf::{
    ClientDst, Config, Endpoint, NodeEntry, ServiceEntry, affinity_of, chosen, clients, policy,
    service_flags,
};

use crate::{
    connect::{Decision, Target, as_node},
    count::count_service,
    maps,
    sockaddr::SockAddr,
};

/// What the client goes on to instead of the Service that it dialled; `None` if that is none.
#[inline(always)]
pub(crate) fn translate(
    address: &SockAddr<'_>,
    dialled: &Endpoint,
    config: &Config,
) -> Option<Target> {
    if !maps::is_port_of_services(dialled.port()) || !maps::has_services_of(config.owner) {
        return None;
    }
    let service = maps::service(dialled)?;
    let number = number(address, &service);
    // The last backend may have got another number, or be gone. The first is there as long as any is.
    let backend = maps::backend(service.id, number).or_else(|| maps::backend(service.id, 0));
    let Some(backend) = backend else {
        count_service(|c| &mut c.service_unread);
        return None;
    };
    let closed_gate = if service.flags & service_flags::REFUSE != 0 {
        policy::REFUSE
    } else {
        policy::BYPASS
    };
    let (node, clients) = match as_node(&backend) {
        Some((node, rule)) => (node, rule.clients),
        None => (no_node(), clients::ALL),
    };
    // A closed gate is the Service's: none of its connects is to reach a node then, whichever was chosen.
    let node = NodeEntry {
        closed_gate,
        ..node
    };
    Some(Target {
        endpoint: backend,
        node,
        clients,
        of_service: true,
    })
}

/// Counts what becomes of a connect to a Service, and notes what `getpeername()` shows.
#[inline(always)]
pub(crate) fn settle(
    address: &SockAddr<'_>,
    dialled: &Endpoint,
    target: &Target,
    decision: &Decision,
    to: &Endpoint,
) {
    match decision {
        Decision::Pass => count_service(|c| &mut c.service_passed),
        Decision::Refuse => count_service(|c| &mut c.service_refused),
        Decision::Redirect => {
            if target.node.node_mode == DIRECT {
                count_service(|c| &mut c.service_direct);
            } else {
                count_service(|c| &mut c.service_redirected);
            }
            let dst = ClientDst {
                original: *dialled,
                redirect: *to,
            };
            if !maps::remember_service_dst(address.socket().cast(), &dst) {
                count_service(|c| &mut c.service_unnoted);
            }
        }
    }
}

/// The [mode](tunnel_ebpf::node_mode) of an endpoint that is no node's: clients are sent there themselves. No entry of
/// the map has it.
pub(crate) const DIRECT: u32 = u32::MAX;

const fn no_node() -> NodeEntry {
    NodeEntry {
        groups: 0,
        node_mode: DIRECT,
        closed_gate: policy::BYPASS,
        slot: 0,
        reserved: 0,
    }
}

#[inline(always)]
fn number(address: &SockAddr<'_>, service: &ServiceEntry) -> u32 {
    let number = if service.flags & service_flags::AFFINITY != 0 {
        affinity_of(address.netns(), service.id)
    } else {
        // SAFETY: a helper without pointers.
        unsafe { bpf_get_prandom_u32() }
    };
    chosen(number, service.backends)
}
