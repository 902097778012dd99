//! The server's end: accepts sessions, knows which node has one, and dials through them.

mod caller;
mod control;
mod expiry;
mod listener;
mod lobby;
mod seldom;
mod session;
mod sessions;

pub use self::{
    caller::UnaryService,
    listener::{AgentListener, ListenerOptions, TunnelMetrics},
    session::{Connection, Session, SessionReport},
    sessions::Sessions,
};
