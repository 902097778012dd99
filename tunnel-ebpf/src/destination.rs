//! Where a connect is sent instead: to a local address that stands for its node, or, where no range
//! serves the client, to a redirect address, with a note.

use core::ptr::{from_ref, read_volatile};

use tunnel_ebpf::{Address, Config, Endpoint, LISTENER_V4, LISTENER_V6, NodeEntry, Range, scheme};

use crate::{
    client::Client,
    namespaces::{self, Outlook},
};

pub(crate) enum Destination {
    /// The address tells whoever accepts what was asked for.
    Range(Endpoint),
    /// It has to be noted.
    Redirect(Endpoint),
    /// Nothing arrives from the client's network namespace.
    Unreached,
}

/// The listener that has to be there. Without one of its own, IPv6 goes where IPv4 goes: a dual-stack
/// socket can; one that is IPv6-only gets the `ENETUNREACH` that it would have got without us.
#[inline(always)]
pub(crate) fn listener(target: &Endpoint, config: &Config) -> u32 {
    if target.address.is_v4() || config.redirect_v6.is_unspecified() {
        LISTENER_V4
    } else {
        LISTENER_V6
    }
}

#[inline(always)]
pub(crate) fn choose(
    client: Client,
    target: &Endpoint,
    node: &NodeEntry,
    config: &Config,
) -> Destination {
    let v6 = listener(target, config) == LISTENER_V6;
    let (host, pods, ipv6) = (
        Place::of(&config.ranges.host, node.slot),
        Place::of(&config.ranges.pods, node.slot),
        Place::of(&config.ranges.v6, node.slot),
    );
    let is_own = matches!(client, Client::Own);
    let place = Place::either(v6, ipv6, Place::either(is_own, host, pods));
    let in_range = place.endpoint(target.port());
    let redirect = Place::either(
        v6,
        Place::fixed(&config.redirect_v6),
        Place::fixed(&config.redirect_v4),
    );
    let outlook = match client {
        Client::Own if in_range.is_some() => Outlook::Scheme(scheme::RANGE),
        Client::Own => Outlook::Scheme(scheme::TUPLE),
        Client::Other(cookie) => namespaces::outlook(cookie, in_range.is_some()),
    };
    match (outlook, in_range) {
        (Outlook::Closed, _) => Destination::Unreached,
        (Outlook::Scheme(scheme::RANGE), Some(to)) => Destination::Range(to),
        _ => Destination::Redirect(Endpoint::new(redirect.address(), config.port)),
    }
}

/// An address by halves: a node's in a range, both 0 if it has none, or a redirect address.
///
/// A choice between references would become a computed offset into the map's value, or into the stack,
/// which the verifier refuses without `CAP_PERFMON`. So everything is read first, and words are chosen.
#[derive(Clone, Copy)]
struct Place {
    first: u64,
    second: u64,
}

impl Place {
    #[inline(always)]
    fn of(range: &Range, slot: u32) -> Self {
        let base = Self::fixed(&range.base);
        // SAFETY: a reference.
        let slots = unsafe { read_volatile(&raw const range.slots) };
        let exists = slot != 0 && u64::from(slot) < slots;
        Self {
            first: pick(exists, base.first, 0),
            second: pick(exists, base.second | u64::from(slot.to_be()) << 32, 0),
        }
    }

    #[inline(always)]
    fn fixed(address: &Address) -> Self {
        let word = |i: usize| {
            // SAFETY: an address consists of twice 8 bytes, aligned, without invalid values.
            unsafe { read_volatile(from_ref(address).cast::<u64>().add(i)) }
        };
        Self {
            first: word(0),
            second: word(1),
        }
    }

    #[inline(always)]
    fn either(condition: bool, yes: Self, no: Self) -> Self {
        Self {
            first: pick(condition, yes.first, no.first),
            second: pick(condition, yes.second, no.second),
        }
    }

    #[inline(always)]
    fn address(self) -> Address {
        Address::from_halves([self.first, self.second])
    }

    #[inline(always)]
    fn endpoint(self, port: u16) -> Option<Endpoint> {
        const { assert!(cfg!(target_endian = "little")) };
        (self.second != 0).then(|| Endpoint::new(self.address(), port))
    }
}

/// `yes` or `no`, without a branch that the compiler could pull something else into.
#[inline(always)]
const fn pick(condition: bool, yes: u64, no: u64) -> u64 {
    let mask = (condition as u64).wrapping_neg();
    yes & mask | no & !mask
}
