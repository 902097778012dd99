//! Whether a server is there to take a redirected connect.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use tunnel_ebpf::Config;

use crate::maps;

pub(crate) enum Gate {
    Open,
    /// No listening socket in the slot: the server is not there, or was killed.
    NoListener,
    /// A listening socket, but the server does not accept: it hangs or is stopped.
    StaleHeartbeat,
}

#[inline(always)]
pub(crate) fn check(config: &Config, slot: u32) -> Gate {
    if !maps::has_listener(slot) {
        return Gate::NoListener;
    }
    // Before the heartbeat is read, which may advance meanwhile.
    // SAFETY: a helper without pointers.
    let now = unsafe { bpf_ktime_get_ns() };
    match maps::last_heartbeat() {
        Some(beat) if now.saturating_sub(beat) <= config.heartbeat_max_age => Gate::Open,
        _ => Gate::StaleHeartbeat,
    }
}
