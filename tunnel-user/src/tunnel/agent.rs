//! The agent's end: keeps a session to every server, dials what servers ask for, and carries it.

mod backoff;
mod dialer;
mod keeper;
mod link;
mod policy;
mod servers;

pub use self::{
    keeper::{Keeper, KeeperOptions},
    policy::{AllowedTarget, InvalidAllowedTarget, Policy, PortRange},
    servers::{LinkReport, LinkState, ServerAddr, Servers, UnreadableServerAddr},
};
