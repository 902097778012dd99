//! Counting, without locks: each CPU has its own counters, and programs are not preempted there.

use tunnel_ebpf::Counters;

use crate::maps;

/// Adds one to the counter that `field` picks.
#[inline(always)]
pub(crate) fn count(field: impl FnOnce(&mut Counters) -> &mut u64) {
    if let Some(counters) = maps::this_cpu_counters() {
        // SAFETY: this CPU's slot, which nobody else writes.
        *field(unsafe { &mut *counters }) += 1;
    }
}
