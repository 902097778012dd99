//! The agent's end: keeps a session with every server, dials what servers ask for, and carries it.

mod allowed_targets;
mod dialer;
mod fleet;
mod keeper;
mod link;
mod policy;
mod search;
mod servers;

pub use self::{
    allowed_targets::{AllowedTargets, InvalidAllowedTargets},
    keeper::{Keeper, KeeperOptions},
    policy::{LocalAddresses, OwnAddresses, Policy},
    servers::{LinkInfo, LinkReport, LinkState, Servers},
};
