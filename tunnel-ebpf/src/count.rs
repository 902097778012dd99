//! Counting, without locks: each CPU has its own counters. Where one program interrupts another on
//! the same CPU a count may be lost, which costs less than an atomic addition in every connect.

use tunnel_ebpf::{Counters, ServiceCounters};

use crate::maps;

/// Adds one to the counter that `field` picks.
#[inline(always)]
pub(crate) fn count(field: impl FnOnce(&mut Counters) -> &mut u64) {
    if let Some(counters) = maps::this_cpu_counters() {
        // SAFETY: this CPU's slot; programs only add to it.
        *field(unsafe { &mut *counters }) += 1;
    }
}

/// Adds one to the counter of Services that `field` picks.
#[inline(always)]
pub(crate) fn count_service(field: impl FnOnce(&mut ServiceCounters) -> &mut u64) {
    if let Some(counters) = maps::this_cpu_service_counters() {
        // SAFETY: as above.
        *field(unsafe { &mut *counters }) += 1;
    }
}
