//! The Services at which servers are reached: what agents dial, and what a server's certificate has
//! to vouch for.
//!
//! ```text
//!  Service, its EndpointSlices --> Facts --> ServerAddresses (agent): addresses to dial
//!  internal Service ------------------\---> ServerNames (server): names for the certificate
//! ```
//! The control-plane nodes are where the Service's endpoints are: a server uses its node's own
//! network, so its endpoint's address is the node's. No label has to be set for that, and agents
//! need not read other Nodes.
//!
//! The names, the annotation and the order are Yurt-Tunnel's
//! (<https://github.com/openyurtio/openyurt/blob/v1.5.0/pkg/yurttunnel/server/serveraddr/addr.go>);
//! unlike there, every address is used, with the port that belongs to it.

mod addresses;
mod facts;
mod names;
mod server_addresses;
mod server_names;
#[cfg(test)]
mod testing;

pub(super) use self::facts::{Watched, ip, type_of};
pub use self::{
    addresses::NoServerAddress,
    server_addresses::{ServerAddresses, ServerAddressesOptions},
    server_names::{ServerNames, ServerNamesOptions},
};
