//! The reverse tunnel: sessions that agents open towards the server, and the connections carried
//! through them.
//!
//! ```text
//!   server                       one TCP+TLS+HTTP/2 connection = one session                 agent
//!   Sessions::dial --DIAL_REQ--> /AgentService/Connect (control, konnectivity's packets) --> dials
//!   carry(client)  <==========>  /culvert.v1.Tunnel/Carry (one stream per connection)  <==> carry(target)
//! ```
//! The agent dials out, so it is the HTTP/2 client: the server asks for a dial on the control
//! stream, and the agent answers a successful one by opening the stream that carries the bytes.
//! Each connection then has HTTP/2's own flow control and half-close, and none waits for another.

pub mod agent;
mod answer;
mod carry;
mod client_io;
mod connection;
mod dial;
mod dialer;
mod first_bytes;
mod memory;
mod metadata;
mod places;
mod registration;
mod relay;
mod route;
pub mod server;
mod settings;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod transport;
mod wire;

pub use answer::dial_failure;
pub use carry::{CarryError, LocalEnd, StreamIo, Transfer, reset, until_reset};
pub use connection::Connection;
pub use dial::DialError;
pub use dialer::{Dialer, DialerOptions, DialledBy};
pub use first_bytes::FirstBytes;
pub use memory::{Memory, Overflow};
pub use places::Client;
pub(crate) use places::{NoPlace, Places};
pub use registration::Refusal;
pub use relay::{Relay, RelayCallers, RelayOptions, RelayServer, RelayedConnection};
pub use route::Destination;
pub use settings::Settings;
pub(crate) use transport::http2::{SharedSocket, grpc};
pub use transport::{ResetReason, StreamError};
