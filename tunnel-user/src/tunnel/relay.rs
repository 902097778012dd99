//! One hop: a server that has no session of a node hands the dial to a server that has one.
//!
//! ```text
//!  client --> Dialer --> Relay --link (mTLS, HTTP/2)--> another server's agent port --> Sessions --> agent
//!                                one stream for each connection
//! ```
//! - A relayed dial is answered out of the sessions of the server that gets it, and never handed on: it takes one hop
//!   or none.
//! - Servers ask each other when there is a client, and remember who answered: nobody keeps lists of what others have.
//! - Who relays says where its client wants to go, not what is to be dialled: the other server looks that up in its own
//!   snapshot, so that a stolen relay certificate opens what a client on that machine could open, and nothing else.

mod callers;
mod link;
mod request;
mod servers;
mod serving;

pub use self::{
    callers::RelayCallers,
    link::RelayedConnection,
    servers::{Relay, RelayOptions, RelayServer},
};
pub(super) use self::{
    request::RELAY_PATH,
    serving::{RelayService, serve},
};
