//! The agent's end: keeps a session to every server, dials what servers ask for, and carries it.

mod allowed_targets;
mod backoff;
mod dialer;
mod keeper;
mod link;
mod policy;
mod servers;

pub use self::{
    allowed_targets::{AllowedTargets, InvalidAllowedTargets},
    keeper::{Keeper, KeeperOptions},
    policy::{LocalAddresses, Policy},
    servers::{LinkInfo, LinkReport, LinkState, Servers},
};
