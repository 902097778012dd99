//! The agent's end: keeps a session with every server, dials what servers ask for, and carries it.

mod allowed_targets;
mod dialer;
mod discovery;
mod ending;
mod own_ports;
mod paths;
mod policy;
mod servers;
mod session;
mod session_manager;
mod session_set;

pub use self::{
    allowed_targets::{AllowedTargets, InvalidAllowedTargets, InvalidPortRange, PortRange},
    own_ports::{Listed, OwnPorts, PortRemedy},
    policy::{Denied, LocalAddresses, OwnAddresses, Policy},
    servers::{ServerReport, ServerState, Servers, SessionInfo},
    session_manager::{SessionManager, SessionManagerOptions},
};
