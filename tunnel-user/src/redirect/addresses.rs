//! This machine's own addresses, over rtnetlink: what must never be redirected, where to listen,
//! and the service address that comes and goes with the server.

mod netlink;
mod pick;
mod service;
mod watch;

pub use pick::{RedirectAddresses, pick_redirect_addresses};
pub use service::ServiceAddress;
pub use watch::AddressWatch;
