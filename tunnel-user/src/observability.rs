//! What a person and a monitoring system see of culvert: logs, metrics, health, status.
//!
//! Nothing here knows the parts it shows; they hand in handles, counters and closures.

pub mod admin;
mod http_server;
mod log_limit;
pub mod logging;
pub mod meta;
pub mod metrics;
mod one_line;
pub mod private_socket;
pub mod readiness;
pub mod status;
mod token_bucket;

pub(crate) use logging::AUDIT;
pub(crate) use token_bucket::{TokenBucket, TokenBuckets};

/// An error with its causes, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
