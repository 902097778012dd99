//! Ways in: what accepts clients, finds the node they want, and hands them to the tunnel.
//!
//! | frontend | which node |
//! |---|---|
//! | [`transparent`] | that of the address which the client dialled, as the kernel programs tell |
//! | [`https`] | the one that the TLS client names, on the port that leads there; or, where TLS may end here, as [`http`] |
//! | [`http`] | the one that a request names in `Host`, or in Yurt-Tunnel's headers |

mod accept;
mod carrier;
pub mod http;
pub mod https;
mod linger;
mod networks;
#[cfg(test)]
mod testing;
pub mod transparent;

pub use self::{
    accept::{Accepting, Stops},
    carrier::Carrier,
    networks::{ClientNetworks, OwnAddresses},
};
