//! How much a client may cost.
//!
//! A connection that is waited for holds a task and what it has sent of a head. A request under way holds at most a
//! buffer of [`HEAD_SIZE`] in each direction at each of its two ends, besides what its connection through the tunnel
//! draws from the process's budget.

use rustix::process::{Resource, getrlimit};

/// The longest head, of requests and of answers; also what hyper buffers in one direction.
pub(super) const HEAD_SIZE: usize = 32 * 1024;
/// The most header fields.
pub(super) const HEAD_FIELDS: usize = 100;
/// The most connections that are waited for, and the most requests under way; fewer where the process may have few
/// descriptors.
const MOST: u64 = 2048;
/// The share of all descriptors that each of the two may take: one in this many.
const SHARE: u64 = 8;

/// How many connections are waited for at a time, and how many requests are under way.
pub(super) fn places() -> u32 {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let places = (descriptors / SHARE).clamp(4, MOST);
    u32::try_from(places).unwrap_or(u32::MAX)
}
