//! Gives connections to addresses that stand for nodes to the server's listener, on whatever port they
//! arrive. It runs before the kernel looks for a socket itself: another server on the same port, which
//! listens on every address, gets none of them.

use core::ptr::read_volatile;

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_SK_LOOKUP_F_NO_REUSEPORT, bpf_sk_lookup},
    helpers::generated::{bpf_ktime_get_ns, bpf_sk_assign},
    programs::SkLookupContext,
};
use tunnel_ebpf::{Address, Config, Endpoint, LISTENER_V4, LISTENER_V6, PortRule, Tuple};

use crate::{
    can_ingress,
    client::{Client, Permit},
    count::count,
    maps,
};

const AF_INET: u32 = 2;
const IPPROTO_TCP: u32 = 6;
/// The loopback interface, in every network namespace.
const LOOPBACK: u32 = 1;

/// What becomes of a connection.
pub(crate) enum Verdict {
    /// The kernel goes on as without us.
    Pass,
    /// Nobody gets it: the client is reset.
    Drop,
}

#[inline(always)]
pub(crate) fn decide(ctx: &SkLookupContext) -> Verdict {
    let lookup = Lookup(ctx.lookup);
    if !lookup.is_tcp() {
        return Verdict::Pass;
    }
    let Some(config) = maps::settings() else {
        return Verdict::Pass;
    };
    let local = lookup.local();
    let (v4, v6) = (&config.ranges, &config.ranges.v6);
    let (slot, listener, interfaces) = if let Some(slot) = v4.host.slot(&local.address) {
        (slot, LISTENER_V4, Interfaces::Loopback)
    } else if let Some(slot) = v4.pods.slot(&local.address) {
        (slot, LISTENER_V4, Interfaces::OfThisMachine)
    } else if let Some(slot) = v6.slot(&local.address) {
        (slot, LISTENER_V6, Interfaces::OfThisMachine)
    } else {
        return announced(&lookup, &local, config);
    };
    if !lookup.came_by(interfaces) {
        count(|c| &mut c.steer_stranger);
        return Verdict::Drop;
    }
    let Some(rule) = tunnelled(slot, local.port()) else {
        count(|c| &mut c.steer_unknown);
        return Verdict::Drop;
    };
    // Whoever dials such an address himself has not been asked at `connect()` whether he may.
    let client = if lookup.came_by(Interfaces::Loopback) {
        Client::Own
    } else {
        Client::Other(0)
    };
    if !matches!(client.permit(rule.clients, config), Permit::Given) {
        count(|c| &mut c.steer_stranger);
        return Verdict::Drop;
    }
    assign(ctx, listener)
}

/// Interfaces by which a connection may come.
#[derive(Clone, Copy)]
enum Interfaces {
    Loopback,
    /// Those of pods, and loopback: no other machine is reached by them.
    OfThisMachine,
}

/// A connection to a redirect address must have been noted before its SYN left.
#[inline(always)]
fn announced(lookup: &Lookup, local: &Endpoint, config: &Config) -> Verdict {
    if local.port() != config.port
        || (local.address != config.redirect_v4 && local.address != config.redirect_v6)
    {
        return Verdict::Pass;
    }
    let tuple = Tuple {
        client: lookup.remote(),
        server: *local,
    };
    if maps::pending(&tuple).is_some() {
        return Verdict::Pass;
    }
    // SAFETY: a helper without pointers.
    if config.lenient_until != 0 && unsafe { bpf_ktime_get_ns() } < config.lenient_until {
        return Verdict::Pass;
    }
    count(|c| &mut c.steer_unannounced);
    Verdict::Drop
}

/// The port's rule, if the slot's address is still a node's, on this port: a client can dial what it was
/// shown.
#[inline(always)]
fn tunnelled(slot: u32, port: u16) -> Option<PortRule> {
    let rule = maps::port_rule(port)?;
    let address = maps::slot(slot)?;
    let node = maps::node(&address)?;
    (node.slot == slot && node.groups & rule.groups != 0).then_some(rule)
}

#[inline(always)]
fn assign(ctx: &SkLookupContext, listener: u32) -> Verdict {
    let assigned = maps::with_listener(listener, |socket| {
        // This very socket, not another that shares its port.
        let flags = u64::from(BPF_SK_LOOKUP_F_NO_REUSEPORT);
        // SAFETY: the context, and a socket that the lookup acquired.
        unsafe { bpf_sk_assign(ctx.as_ptr(), socket, flags) }
    });
    match assigned {
        Some(0) => {
            count(|c| &mut c.steered);
            Verdict::Pass
        }
        _ => Verdict::Drop,
    }
}

struct Lookup(*mut bpf_sk_lookup);

impl Lookup {
    #[inline(always)]
    fn is_tcp(&self) -> bool {
        // SAFETY: the kernel passes a valid context.
        unsafe { read_volatile(&raw const (*self.0).protocol) == IPPROTO_TCP }
    }

    #[inline(always)]
    fn is_v4(&self) -> bool {
        // SAFETY: the kernel passes a valid context.
        unsafe { read_volatile(&raw const (*self.0).family) == AF_INET }
    }

    #[inline(always)]
    fn came_by(&self, interfaces: Interfaces) -> bool {
        if !can_ingress() {
            return false;
        }
        // SAFETY: the kernel passes a valid context, and has the field, as the loader found.
        let interface = unsafe { read_volatile(&raw const (*self.0).ingress_ifindex) };
        match interfaces {
            Interfaces::Loopback => interface == LOOPBACK,
            Interfaces::OfThisMachine => !maps::is_uplink(interface),
        }
    }

    /// The context holds the local port in host order.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a port fits, the field is merely wide"
    )]
    fn local(&self) -> Endpoint {
        // SAFETY: the kernel passes a valid context.
        let port = unsafe { read_volatile(&raw const (*self.0).local_port) as u16 };
        // Before the branch: two loads that end its arms would be merged into one of a computed
        // offset, which the verifier refuses.
        // SAFETY: the kernel passes a valid context.
        let v4 = unsafe { read_volatile(&raw const (*self.0).local_ip4) };
        let address = if self.is_v4() {
            Address::from_v4_word(v4)
        } else {
            // SAFETY: the kernel passes a valid context.
            words(unsafe { (&raw const (*self.0).local_ip6).cast() })
        };
        Endpoint::new(address, port)
    }

    /// The context holds the remote port in network order.
    #[inline(always)]
    fn remote(&self) -> Endpoint {
        // SAFETY: the kernel passes a valid context.
        let port = u16::from_be(unsafe { read_volatile(&raw const (*self.0).remote_port) });
        // Before the branch: two loads that end its arms would be merged into one of a computed
        // offset, which the verifier refuses.
        // SAFETY: the kernel passes a valid context.
        let v4 = unsafe { read_volatile(&raw const (*self.0).remote_ip4) };
        let address = if self.is_v4() {
            Address::from_v4_word(v4)
        } else {
            // SAFETY: the kernel passes a valid context.
            words(unsafe { (&raw const (*self.0).remote_ip6).cast() })
        };
        Endpoint::new(address, port)
    }
}

#[inline(always)]
fn words(first: *const u32) -> Address {
    // SAFETY: the callers pass the four words of a context's address.
    let word = |i: usize| unsafe { read_volatile(first.add(i)) };
    Address::from_words([word(0), word(1), word(2), word(3)])
}
