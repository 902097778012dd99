//! The server's end: accepts sessions, knows which node has one, and dials through them.

mod connection;
mod control;
mod listener;
mod session;
mod sessions;

pub use self::{
    connection::UnaryService,
    listener::{AgentListener, ListenerOptions, TunnelMetrics},
    session::{Connection, Session, SessionReport},
    sessions::Sessions,
};
