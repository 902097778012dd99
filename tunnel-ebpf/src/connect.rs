//! The decision over one connect.

use tunnel_ebpf::{ClientDst, Config, Endpoint, NodeEntry, PortRule, node_mode, policy, port_kind};

use crate::{
    client::{Client, Permit},
    count::count,
    destination::{self, Destination},
    gate::{self, Gate},
    maps, services,
    sockaddr::SockAddr,
    trace::trace,
};

pub(crate) enum Decision {
    Pass,
    /// To the endpoint that the caller lent. That has a value whatever is decided: kernels before 6.4 refuse a program
    /// without `CAP_PERFMON` in which they see a way, were it one that cannot be taken, to what nobody has written.
    Redirect,
    Refuse,
}

/// Where a connect leads.
pub(crate) struct Target {
    pub(crate) endpoint: Endpoint,
    /// The node that has this address.
    pub(crate) node: NodeEntry,
    /// Who may use the node's port; one of [`clients`](tunnel_ebpf::clients).
    pub(crate) clients: u32,
    /// The client dialled a Service, of which this is an endpoint.
    pub(crate) of_service: bool,
}

/// Decides over a connect. What is not ours costs one lookup, and one that the kernel makes a load.
#[inline(always)]
pub(crate) fn decide(address: &SockAddr<'_>, dialled: &Endpoint, to: &mut Endpoint) -> Decision {
    if !address.is_tcp() {
        return Decision::Pass;
    }
    let rule = maps::port_rule(dialled.port());
    let Some(config) = maps::settings() else {
        return Decision::Pass;
    };
    let node = match &rule {
        Some(rule) if rule.kind == port_kind::OWN && is_own_listener(dialled, config) => {
            dialled_directly(address, dialled);
            return Decision::Pass;
        }
        Some(rule) => member(dialled, rule),
        None => None,
    };
    let target = match (node, &rule) {
        (Some(node), Some(rule)) => Some(Target {
            endpoint: *dialled,
            node,
            clients: rule.clients,
            of_service: false,
        }),
        _ => services::translate(address, dialled, config),
    };
    let Some(target) = target else {
        count_untouched(address, dialled, rule.is_some());
        return Decision::Pass;
    };
    let decision = permitted(address, &target, config, to);
    if target.of_service {
        if target.node.node_mode == services::DIRECT && matches!(decision, Decision::Redirect) {
            count_untouched(address, dialled, rule.is_some());
        }
        services::settle(address, dialled, &target, &decision, to);
    } else if matches!(decision, Decision::Redirect) {
        maps::forget_service_dst(address.socket().cast());
    }
    decision
}

/// The node that has this address, and the rule of this port of it.
#[inline(always)]
pub(crate) fn as_node(endpoint: &Endpoint) -> Option<(NodeEntry, PortRule)> {
    let rule = maps::port_rule(endpoint.port())?;
    member(endpoint, &rule).map(|node| (node, rule))
}

/// The node that has this address, if the port with this rule is one of its.
#[inline(always)]
fn member(endpoint: &Endpoint, rule: &PortRule) -> Option<NodeEntry> {
    maps::node(&endpoint.address).filter(|node| node.groups & rule.groups != 0)
}

/// A connect to something that is no node's.
#[inline(always)]
fn count_untouched(address: &SockAddr<'_>, dialled: &Endpoint, tunnelled_port: bool) {
    if tunnelled_port {
        count(|c| &mut c.other_address);
        trace!(debug, address, dialled, "pass", "other-address");
    } else {
        count(|c| &mut c.other_port);
    }
}

/// Decides whether the client may go there, before anything else is looked at.
#[inline(always)]
fn permitted(
    address: &SockAddr<'_>,
    wanted: &Target,
    config: &Config,
    to: &mut Endpoint,
) -> Decision {
    let target = &wanted.endpoint;
    if is_exempt(address, target, config) {
        return Decision::Pass;
    }
    let client = Client::of(address, config);
    match client.permit(wanted.clients, config) {
        Permit::Given => through_gate(address, target, client, &wanted.node, config, to),
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
    to: &mut Endpoint,
) -> Decision {
    let listener = destination::listener(target, config);
    let refuse = node.closed_gate == policy::REFUSE;
    match gate::check(config, listener) {
        Gate::Open => as_it_stands(address, target, client, node, config, to),
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
    to: &mut Endpoint,
) -> Decision {
    match node.node_mode {
        node_mode::CAPTURE => redirect(address, target, client, node, config, to),
        services::DIRECT => {
            trace!(info, address, target, "redirect", "endpoint");
            *to = *target;
            Decision::Redirect
        }
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
    maps::forget_service_dst(address.socket().cast());
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
    to: &mut Endpoint,
) -> Decision {
    match destination::choose(client, target, node, config) {
        Destination::Range(range) => {
            count(|c| &mut c.redirected);
            trace!(info, address, target, "redirect", "range");
            *to = range;
            Decision::Redirect
        }
        Destination::Redirect(listener) => {
            *to = listener;
            redirect_with_note(address, target, node, listener)
        }
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
    listener: Endpoint,
) -> Decision {
    let dst = ClientDst {
        original: *target,
        redirect: listener,
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
    Decision::Redirect
}
