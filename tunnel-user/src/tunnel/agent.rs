//! The agent's end: keeps a session with every server, dials what servers ask for, and carries it.

mod allowed_targets;
mod dialer;
mod ending;
mod fleet;
mod keeper;
mod link;
mod own_ports;
mod paths;
mod policy;
mod search;
mod servers;

pub use self::{
    allowed_targets::{AllowedTargets, InvalidAllowedTargets, InvalidPortRange, PortRange},
    keeper::{Keeper, KeeperOptions},
    own_ports::{Listed, OwnPorts, PortRemedy},
    policy::{Denied, LocalAddresses, OwnAddresses, Policy},
    servers::{LinkInfo, LinkReport, LinkState, Servers},
};
