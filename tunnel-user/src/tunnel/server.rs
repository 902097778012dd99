//! The server's end: accepts sessions, knows which node has one, and dials through them.

mod caller;
mod control;
mod listener;
mod lobby;
mod proved;
mod seldom;
mod session;
mod sessions;

pub use self::{
    caller::UnaryService,
    listener::{AgentListener, ListenerOptions, TunnelMetrics},
    session::{Connection, Session, SessionReport},
    sessions::Sessions,
};
