//! The decision over one connect.

use tunnel_ebpf::{ClientDst, Config, Endpoint, NodeEntry, node_mode, policy, port_kind};

use crate::{
    client::{Client, Permit},
    count::count,
    destination::{self, Destination},
    gate::{self, Gate},
    maps,
    sockaddr::SockAddr,
    trace::trace,
};

pub(crate) enum Decision {
    Pass,
    Redirect(Endpoint),
    Refuse,
}

/// Decides over a connect to `target`. What is not ours costs one lookup.
#[inline(always)]
pub(crate) fn decide(address: &SockAddr<'_>, target: &Endpoint) -> Decision {
    if !address.is_tcp() {
        return Decision::Pass;
    }
    let Some(rule) = maps::port_rule(target.port()) else {
        count(|c| &mut c.other_port);
        return Decision::Pass;
    };
    let Some(config) = maps::settings() else {
        return Decision::Pass;
    };
    if rule.kind == port_kind::OWN && is_own_listener(target, config) {
        dialled_directly(address, target);
        return Decision::Pass;
    }
    let node = match maps::node(&target.address) {
        Some(node) if node.groups & rule.groups != 0 => node,
        _ => {
            count(|c| &mut c.other_address);
            trace!(debug, address, target, "pass", "other-address");
            return Decision::Pass;
        }
    };
    if is_exempt(address, target, config) {
        return Decision::Pass;
    }
    let client = Client::of(address, config);
    match client.permit(&rule, config) {
        Permit::Given => through_gate(address, target, client, &node, config),
        Permit::NotCaptured => {
            count(|c| &mut c.other_client);
            trace!(debug, address, target, "pass", "other-client");
            Decision::Pass
        }
        Permit::Refused => {
            count(|c| &mut c.client_refused);
            trace!(info, address, target, "refuse", "client");
            Decision::Refuse
        }
    }
}

/// While a server is there to take connects, the node's mode decides; else the node's
/// policy does: what a server said of its sessions must not outlive it.
#[inline(always)]
fn through_gate(
    address: &SockAddr<'_>,
    target: &Endpoint,
    client: Client,
    node: &NodeEntry,
    config: &Config,
) -> Decision {
    let listener = destination::listener(target, config);
    let refuse = node.closed_gate == policy::REFUSE;
    match gate::check(config, listener) {
        Gate::Open => as_it_stands(address, target, client, node, config),
        Gate::NoListener if refuse => {
            count(|c| &mut c.no_listener_refuse);
            trace!(info, address, target, "refuse", "no-listener");
            Decision::Refuse
        }
        Gate::NoListener => {
            count(|c| &mut c.no_listener_bypass);
            trace!(debug, address, target, "pass", "no-listener");
            Decision::Pass
        }
        Gate::StaleHeartbeat if refuse => {
            count(|c| &mut c.stale_heartbeat_refuse);
            trace!(info, address, target, "refuse", "stale-heartbeat");
            Decision::Refuse
        }
        Gate::StaleHeartbeat => {
            count(|c| &mut c.stale_heartbeat_bypass);
            trace!(debug, address, target, "pass", "stale-heartbeat");
            Decision::Pass
        }
    }
}

#[inline(always)]
fn as_it_stands(
    address: &SockAddr<'_>,
    target: &Endpoint,
    client: Client,
    node: &NodeEntry,
    config: &Config,
) -> Decision {
    match node.node_mode {
        node_mode::CAPTURE => redirect(address, target, client, node, config),
        node_mode::REFUSE => {
            count(|c| &mut c.standing_refuse);
            trace!(info, address, target, "refuse", "node mode");
            Decision::Refuse
        }
        _ => {
            count(|c| &mut c.standing_bypass);
            trace!(debug, address, target, "pass", "node mode");
            Decision::Pass
        }
    }
}

#[inline(always)]
fn is_own_listener(target: &Endpoint, config: &Config) -> bool {
    target.address == config.redirect_v4 || target.address == config.redirect_v6
}

/// A socket that was redirected before and now dials the server itself must not be taken for a
/// redirected one.
#[inline(always)]
fn dialled_directly(address: &SockAddr<'_>, target: &Endpoint) {
    count(|c| &mut c.own_listener);
    maps::forget_client_dst(address.socket().cast());
    trace!(debug, address, target, "pass", "own-listener");
}

#[inline(always)]
fn is_exempt(address: &SockAddr<'_>, target: &Endpoint, config: &Config) -> bool {
    if config.mark != 0 && address.mark() == config.mark {
        count(|c| &mut c.exempt_mark);
        trace!(debug, address, target, "exempt", "mark");
        return true;
    }
    if address.is_bound_to_device() {
        count(|c| &mut c.exempt_device);
        trace!(debug, address, target, "exempt", "bound-to-device");
        return true;
    }
    false
}

#[inline(always)]
fn redirect(
    address: &SockAddr<'_>,
    target: &Endpoint,
    client: Client,
    node: &NodeEntry,
    config: &Config,
) -> Decision {
    match destination::choose(client, target, node, config) {
        Destination::Range(to) => {
            count(|c| &mut c.redirected);
            trace!(info, address, target, "redirect", "range");
            Decision::Redirect(to)
        }
        Destination::Redirect(to) => redirect_with_note(address, target, node, to),
        Destination::Unreached if node.closed_gate == policy::REFUSE => {
            count(|c| &mut c.unreached_refuse);
            trace!(info, address, target, "refuse", "unreached");
            Decision::Refuse
        }
        Destination::Unreached => {
            count(|c| &mut c.unreached_bypass);
            trace!(info, address, target, "pass", "unreached");
            Decision::Pass
        }
    }
}

#[inline(always)]
fn redirect_with_note(
    address: &SockAddr<'_>,
    target: &Endpoint,
    node: &NodeEntry,
    to: Endpoint,
) -> Decision {
    let dst = ClientDst {
        original: *target,
        redirect: to,
    };
    if !maps::remember_client_dst(address.socket().cast(), &dst) {
        count(|c| &mut c.redirect_failed);
        if node.closed_gate == policy::REFUSE {
            trace!(debug, address, target, "refuse", "no-memory");
            return Decision::Refuse;
        }
        trace!(debug, address, target, "pass", "no-memory");
        return Decision::Pass;
    }
    count(|c| &mut c.redirected);
    count(|c| &mut c.redirected_by_tuple);
    trace!(info, address, target, "redirect", "tuple");
    Decision::Redirect(to)
}
