//! The targets by which a server proves to itself that what it captures arrives.
//!
//! They are captured like a node's addresses, but their connections end at the server, which
//! answers each with the same few bytes. The addresses are multicast ones for documentation (RFC
//! 6676): no node can have them, and TCP refuses to leave the machine for them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a server answers to a connection to a probe's target; for a person as well, who tries.
pub const ARRIVED: &[u8] = b"culvert: arrived\n";

/// An address family that clients use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The address that the probe of this family dials.
    pub const fn probe_target(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(233, 252, 0, 77)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0xdb8, 0, 0x77)),
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Whether this is the target of a probe.
pub fn is_probe_target(address: IpAddr) -> bool {
    Family::of(address).probe_target() == address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_targets_are_told_apart_from_everything_else() {
        for family in Family::ALL {
            assert!(is_probe_target(family.probe_target()));
            assert!(family.probe_target().is_multicast());
            assert_eq!(Family::of(family.probe_target()), family);
        }
        assert!(!is_probe_target("10.78.0.11".parse().unwrap()));
        assert!(!is_probe_target("ff01::77".parse().unwrap()));
    }
}
