//! How much of a load a run asks for: quick by default, all of it with `CULVERT_FULL=1`, little with
//! `CULVERT_SMALL=1` (an emulated machine).

use std::env;

/// Picks the count for this run.
pub fn count(full: u64, quick: u64, small: u64) -> u64 {
    let set = |name| env::var_os(name).is_some_and(|value| value != "0");
    if set("CULVERT_FULL") {
        full
    } else if set("CULVERT_SMALL") {
        small
    } else {
        quick
    }
}
