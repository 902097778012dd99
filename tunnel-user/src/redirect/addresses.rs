//! This machine's own addresses, over rtnetlink: what must never be redirected, where to listen,
//! who is local, and the service address that comes and goes with the server.

pub mod local_route;
mod netlink;
mod pick;
mod routes;
mod service;
#[cfg(test)]
mod testing;
mod uplinks;
mod watch;

pub use pick::{Candidate, Candidates, Place};
pub use service::ServiceAddress;
pub use uplinks::Surroundings;
pub use watch::{AddressWatch, NetworkWatch, Reading, SurroundingsWatch};
