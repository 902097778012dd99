//! Counting, without locks: each CPU has its own counters. Where one program interrupts another on
//! the same CPU a count may be lost, which costs less than an atomic addition in every connect.

use tunnel_ebpf::Counters;

use crate::maps;

/// Adds one to the counter that `field` picks.
#[inline(always)]
pub(crate) fn count(field: impl FnOnce(&mut Counters) -> &mut u64) {
    if let Some(counters) = maps::this_cpu_counters() {
        // SAFETY: this CPU's slot; programs only add to it.
        *field(unsafe { &mut *counters }) += 1;
    }
}
