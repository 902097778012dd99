//! Ways in: what accepts clients, finds the node they want, and hands them to the tunnel.

mod accept;
mod carrier;
mod networks;
pub mod transparent;

pub use self::{
    accept::{Accepting, Stops},
    carrier::Carrier,
    networks::ClientNetworks,
};
