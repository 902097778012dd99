//! The server's end: accepts sessions, knows which node has one, and dials through them.

mod arriving;
mod caller;
mod control;
mod door;
mod ending;
mod listener;
mod peer_identity;
mod preauth;
mod session;
mod sessions;

pub use self::{
    caller::UnaryService,
    listener::{AgentListener, ListenerOptions, TunnelMetrics},
    session::{Session, SessionConnection, SessionReport},
    sessions::Sessions,
};
