//! What a person and a monitoring system see of culvert: logs, metrics, health, status.
//!
//! Nothing here knows the parts it shows; they hand in handles, counters and closures.

pub mod admin;
mod causes;
pub mod logging;
pub mod meta;
pub mod metrics;
pub mod private_socket;
pub mod readiness;
pub mod status;

pub(crate) use causes::chain;
