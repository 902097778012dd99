//! Which ports are tunnelled.

use std::{
    collections::BTreeSet,
    num::{NonZeroU16, ParseIntError},
    str::FromStr,
};

/// A port that may be tunnelled: any but 0.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct TunnelPort(NonZeroU16);

/// A set of tunnelled ports, in order.
pub type PortSet = BTreeSet<TunnelPort>;

/// The ports of its node that the cluster lists for an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedPorts {
    /// On the node's addresses.
    pub own: PortSet,
    /// On its loopback.
    pub loopback: PortSet,
}

impl TunnelPort {
    /// The kubelet's HTTPS port.
    pub const KUBELET: Self = Self(NonZeroU16::new(10250).unwrap());
    /// The kubelet's read-only HTTP port.
    pub const KUBELET_READ_ONLY: Self = Self(NonZeroU16::new(10255).unwrap());

    /// `None` for port 0.
    pub fn new(port: u16) -> Option<Self> {
        NonZeroU16::new(port).map(Self)
    }

    /// The port as a number.
    pub fn number(self) -> u16 {
        self.0.get()
    }
}

impl FromStr for TunnelPort {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl std::fmt::Display for TunnelPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
