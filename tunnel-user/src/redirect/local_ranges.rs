//! Which ranges of local addresses stand for nodes, as they are asked for.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tunnel_ebpf::{MAX_NODES, Range, Ranges};

/// The fewest host bits of a range.
const FEWEST_BITS: u8 = 4;

/// The ranges of a server. What has none is served by notes under 4-tuples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalRanges {
    /// For IPv4 connects of the server's own network namespace.
    pub host: Option<Ipv4Net>,
    /// For IPv4 connects of other namespaces.
    pub pods: Option<Ipv4Net>,
    /// For native IPv6 connects.
    pub v6: Option<Ipv6Net>,
}

/// A range in 127.0.0.0/8, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRange(pub Option<Ipv4Net>);

/// A range that is routed to the loopback interface, or `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodRange(pub Option<IpNet>);

/// Why a range cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRange {
    /// No network, nor `none`.
    #[error("{0:?} is neither a network as in 198.18.0.0/15 nor \"none\"")]
    Syntax(String),
    /// Not within loopback.
    #[error("{0} is not within 127.0.0.0/8: only that needs no route")]
    NotLoopback(Ipv4Net),
    /// Within loopback, which other namespaces do not reach.
    #[error("{0} is loopback, multicast or link-local: pods do not reach it")]
    NotRoutable(IpNet),
    /// Contains 127.0.0.1.
    #[error("{0} contains 127.0.0.1, which everybody uses")]
    Localhost(Ipv4Net),
    /// Too few addresses.
    #[error("{0} is too small: each address of a node takes one address of it")]
    TooSmall(IpNet),
    /// An IPv6 network with too few addresses.
    #[error("{0} is too small: an IPv6 range is a /96 or larger")]
    TooSmallV6(Ipv6Net),
}

impl Default for LocalRanges {
    fn default() -> Self {
        Self {
            host: HostRange::default().0,
            pods: Some(net_v4(Ipv4Addr::new(198, 18, 0, 0), 15)),
            v6: Some(
                Ipv6Net::new([0xfd63, 0x756c, 0x7665, 0x7274, 0, 0, 0, 0].into(), 64)
                    .expect("a prefix of 64"),
            ),
        }
    }
}

impl Default for HostRange {
    fn default() -> Self {
        Self(Some(net_v4(Ipv4Addr::new(127, 64, 0, 0), 15)))
    }
}

impl LocalRanges {
    /// No range is used.
    pub const NONE: Self = Self {
        host: None,
        pods: None,
        v6: None,
    };

    /// The ranges as the programs know them.
    pub(super) fn compiled(&self) -> Ranges {
        Ranges {
            host: self.host.map_or(Range::OFF, |net| range(net.into())),
            pods: self.pods.map_or(Range::OFF, |net| range(net.into())),
            v6: self.v6.map_or(Range::OFF, |net| range(net.into())),
        }
    }
}

fn range(net: IpNet) -> Range {
    let host_bits = net.max_prefix_len() - net.prefix_len();
    let slots = 1_u64.checked_shl(host_bits.into()).unwrap_or(u64::MAX);
    Range {
        base: net.network().into(),
        slots: slots.min(MAX_NODES as u64),
    }
}

impl FromStr for HostRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Self(None));
        }
        let net: Ipv4Net = text
            .parse()
            .map_err(|_| InvalidRange::Syntax(text.to_owned()))?;
        let net = net.trunc();
        if !(net.network().is_loopback() && net.broadcast().is_loopback()) {
            return Err(InvalidRange::NotLoopback(net));
        }
        if net.contains(&Ipv4Addr::LOCALHOST) {
            return Err(InvalidRange::Localhost(net));
        }
        check_size(net.into())?;
        Ok(Self(Some(net)))
    }
}

impl FromStr for PodRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Self(None));
        }
        let net: IpNet = text
            .parse()
            .map_err(|_| InvalidRange::Syntax(text.to_owned()))?;
        let net = net.trunc();
        let first = net.network();
        let link_local = match first {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        if first.is_loopback() || first.is_multicast() || first.is_unspecified() || link_local {
            return Err(InvalidRange::NotRoutable(net));
        }
        check_size(net)?;
        Ok(Self(Some(net)))
    }
}

fn check_size(net: IpNet) -> Result<(), InvalidRange> {
    match net {
        IpNet::V6(v6) if v6.prefix_len() > 96 => Err(InvalidRange::TooSmallV6(v6)),
        IpNet::V4(v4) if 32 - v4.prefix_len() < FEWEST_BITS => Err(InvalidRange::TooSmall(net)),
        _ => Ok(()),
    }
}

fn net_v4(first: Ipv4Addr, prefix: u8) -> Ipv4Net {
    Ipv4Net::new(first, prefix).expect("a constant prefix")
}

impl fmt::Display for HostRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        display(self.0, f)
    }
}

impl fmt::Display for PodRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        display(self.0, f)
    }
}

fn display(net: Option<impl fmt::Display>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match net {
        Some(net) => net.fmt(f),
        None => f.write_str("none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_cannot_work_are_refused_with_the_reason() {
        for (text, reason) in [
            ("10.0.0.0/8", "not within 127.0.0.0/8"),
            ("127.0.0.0/16", "contains 127.0.0.1"),
            ("127.64.0.0/30", "too small"),
            ("127.64.0.0", "neither a network"),
        ] {
            let error = text.parse::<HostRange>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        for (text, reason) in [
            ("127.64.0.0/15", "pods do not reach it"),
            ("169.254.0.0/16", "pods do not reach it"),
            ("fe80::/64", "pods do not reach it"),
            ("fd00::/112", "a /96 or larger"),
            ("198.18.0.0/31", "too small"),
            ("everything", "neither a network"),
        ] {
            let error = text.parse::<PodRange>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_range_has_as_many_slots_as_addresses_and_no_more_than_there_are_nodes() {
        let ranges = LocalRanges {
            host: "127.200.1.0/24".parse::<HostRange>().unwrap().0,
            ..LocalRanges::default()
        };
        let compiled = ranges.compiled();
        assert_eq!(compiled.host.slots, 256);
        assert_eq!(compiled.pods.slots, MAX_NODES as u64);
        assert_eq!(compiled.v6.slots, MAX_NODES as u64);
        assert_eq!(LocalRanges::NONE.compiled(), Ranges::OFF);
    }
}
