//! What is learnt of other network namespaces from their own connects: whether the ranges are routed
//! there, and whether anything arrives at all. Only pods' clients can tell, for the server may not enter
//! their namespaces.
//!
//! ```text
//!  RANGE --no route, a SYN lost, or nothing arrived yet--> TUPLE --a SYN lost--> closed for seconds
//!    ^                                                       |                       |
//!    '------------------ after some minutes -----------------'-----------------------'
//! ```

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use tunnel_ebpf::{Namespace, scheme};

use crate::{count::count, maps};

const SECOND: u64 = 1_000_000_000;
/// A local connection is established at once. The first SYN is repeated after one second.
const PROOF_TIME: u64 = 3 * SECOND / 2;
/// Between the decision over a connect and its SYN lies nothing but the look for a route. A thread may be stopped in
/// between: a quota of processor time does so for up to 100 ms.
const SYN_TIME: u64 = SECOND / 4;
/// A lost SYN is no verdict while others arrive; that is given this time.
const LOSS_TIME: u64 = SECOND / 2;
/// How long the gate stays closed for a namespace from which nothing arrives.
const CLOSED_TIME: u64 = 5 * SECOND;
/// How long a namespace that the ranges do not serve is left with the other scheme.
const TUPLE_TIME: u64 = 600 * SECOND;

/// What a connect may expect.
pub(crate) enum Outlook {
    /// To arrive by this [`scheme`].
    Scheme(u64),
    /// Not to arrive.
    Closed,
}

/// Decides over a connect from another namespace; `has_range` says whether its target has an address
/// in a range.
#[inline(always)]
pub(crate) fn outlook(cookie: u64, has_range: bool) -> Outlook {
    let now = now();
    let first = if has_range {
        scheme::RANGE
    } else {
        scheme::TUPLE
    };
    let Some(namespace) = maps::namespace(cookie) else {
        maps::insert_namespace(
            cookie,
            &Namespace {
                scheme: first,
                lost_since: 0,
                scheme_since: now,
                closed_until: 0,
                doubted_since: now,
                attempted_at: now,
            },
        );
        return Outlook::Scheme(first);
    };
    let known = Known(namespace);
    if known.closed_until() != 0 {
        if now < known.closed_until() {
            return Outlook::Closed;
        }
        known.start_over(first, now);
        return Outlook::Scheme(first);
    }
    let lost = is_older(known.lost_since(), LOSS_TIME, now);
    if known.scheme() == scheme::RANGE {
        if lost
            || is_older(known.doubted_since(), PROOF_TIME, now)
            || is_older(known.attempted_at(), SYN_TIME, now)
        {
            known.start_over(scheme::TUPLE, now);
        } else if known.doubted_since() != 0 && known.attempted_at() == 0 {
            known.attempt(now);
        }
    } else if lost {
        known.close_until(now + CLOSED_TIME);
        return Outlook::Closed;
    } else if has_range && is_older(known.scheme_since(), TUPLE_TIME, now) {
        known.start_over(scheme::RANGE, now);
    }
    Outlook::Scheme(known.scheme())
}

/// A SYN from this namespace leaves for a range: there is a route.
#[inline(always)]
pub(crate) fn leaves(cookie: u64) {
    let Some(namespace) = maps::namespace(cookie) else {
        return;
    };
    let known = Known(namespace);
    if known.attempted_at() != 0 {
        known.attempt(0);
    }
}

/// A connection from this namespace is established.
#[inline(always)]
pub(crate) fn arrived(cookie: u64) {
    let Some(namespace) = maps::namespace(cookie) else {
        return;
    };
    let known = Known(namespace);
    if known.doubted_since() | known.lost_since() != 0 {
        known.trust();
    }
}

/// A SYN from this namespace was not answered in time.
#[inline(always)]
pub(crate) fn lost(cookie: u64) {
    count(|c| &mut c.syn_lost);
    let Some(namespace) = maps::namespace(cookie) else {
        return;
    };
    let known = Known(namespace);
    if known.lost_since() == 0 {
        known.lose(now());
    }
}

#[inline(always)]
fn is_older(since: u64, age: u64, now: u64) -> bool {
    since != 0 && now.saturating_sub(since) > age
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without pointers.
    unsafe { bpf_ktime_get_ns() }
}

/// A value in the map. Each field is read and written as one word.
#[derive(Clone, Copy)]
struct Known(*mut Namespace);

/// Accessors of a field.
macro_rules! field {
    ($read:ident, $write:ident) => {
        #[inline(always)]
        fn $read(self) -> u64 {
            // SAFETY: a value of the map, which stays while the program runs.
            unsafe { read_volatile(&raw const (*self.0).$read) }
        }

        #[inline(always)]
        fn $write(self, value: u64) {
            // SAFETY: a value of the map, which stays while the program runs.
            unsafe { write_volatile(&raw mut (*self.0).$read, value) }
        }
    };
}

impl Known {
    field!(scheme, set_scheme);
    field!(scheme_since, set_scheme_since);
    field!(doubted_since, set_doubted_since);
    field!(lost_since, lose);
    field!(closed_until, close_until);
    field!(attempted_at, attempt);

    #[inline(always)]
    fn start_over(self, scheme: u64, now: u64) {
        self.set_scheme(scheme);
        self.set_scheme_since(now);
        self.set_doubted_since(now);
        self.lose(0);
        self.close_until(0);
        self.attempt(if scheme == scheme::RANGE { now } else { 0 });
    }

    #[inline(always)]
    fn trust(self) {
        self.set_doubted_since(0);
        self.lose(0);
    }
}
