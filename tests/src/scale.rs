//! How much of a load a run asks for: quick by default, all of it with `CULVERT_FULL=1`, little with
//! `CULVERT_SMALL=1` (an emulated machine).

use std::env;
use std::time::Duration;

/// Picks the count for this run.
pub fn count(full: u64, quick: u64, small: u64) -> u64 {
    if is_set("CULVERT_FULL") {
        full
    } else if is_set("CULVERT_SMALL") {
        small
    } else {
        quick
    }
}

/// How long to wait for something that takes at most `usual` on an ordinary machine.
pub fn patience(usual: Duration) -> Duration {
    if is_set("CULVERT_SMALL") {
        usual * 6
    } else {
        usual
    }
}

fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| value != "0")
}
