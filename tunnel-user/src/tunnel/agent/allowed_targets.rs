//! What an agent may dial: of other machines `CIDR[:PORTS]`, of its own node `PORTS`.

use std::{fmt, net::IpAddr, ops::RangeInclusive, str::FromStr};

use ipnet::IpNet;

use crate::model::TunnelPort;

/// Addresses, and the ports on them, that an agent may dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedTargets {
    /// The addresses.
    pub network: IpNet,
    /// The ports; never empty. Without ports in the text: all.
    pub ports: Vec<RangeInclusive<u16>>,
}

/// A port, or several in a row; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange(RangeInclusive<u16>);

/// Why a text is not a [`PortRange`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a port or a range of ports from 1 to 65535, as in 9100 or 9400-9410")]
pub struct InvalidPortRange;

/// Why a text is not [`AllowedTargets`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected CIDR[:PORTS], as in 10.0.0.0/8, 10.0.0.0/8:443,8000-8100 or fd00::/8:10250")]
pub struct InvalidAllowedTargets;

impl AllowedTargets {
    /// Whether these targets contain the address and port.
    pub fn contain(&self, ip: IpAddr, port: u16) -> bool {
        self.network.contains(&ip.to_canonical())
            && self.ports.iter().any(|range| range.contains(&port))
    }
}

impl PortRange {
    /// Whether the port is one of these.
    pub fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }
}

impl From<TunnelPort> for PortRange {
    fn from(port: TunnelPort) -> Self {
        Self(port.number()..=port.number())
    }
}

impl FromStr for PortRange {
    type Err = InvalidPortRange;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = port_range(text).map_err(|_| InvalidPortRange)?;
        Ok(Self(range))
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

impl FromStr for AllowedTargets {
    type Err = InvalidAllowedTargets;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, rest) = text.split_once('/').ok_or(InvalidAllowedTargets)?;
        let (prefix, ports) = match rest.split_once(':') {
            Some((prefix, ports)) => (prefix, Some(ports)),
            None => (rest, None),
        };
        let network = format!("{address}/{prefix}")
            .parse()
            .map_err(|_| InvalidAllowedTargets)?;
        let ports = match ports {
            Some(ports) => ports.split(',').map(port_range).collect::<Result<_, _>>()?,
            None => vec![1..=u16::MAX],
        };
        Ok(Self { network, ports })
    }
}

impl fmt::Display for AllowedTargets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.network.fmt(f)?;
        if self.ports == [1..=u16::MAX] {
            return Ok(());
        }
        for (i, ports) in self.ports.iter().enumerate() {
            let separator = if i == 0 { ":" } else { "," };
            write!(f, "{separator}{}", PortRange(ports.clone()))?;
        }
        Ok(())
    }
}

fn port_range(text: &str) -> Result<RangeInclusive<u16>, InvalidAllowedTargets> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.trim().parse().map_err(|_| InvalidAllowedTargets);
    let (first, last) = (port(first)?, port(last)?);
    if first == 0 || first > last {
        return Err(InvalidAllowedTargets);
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_writes() {
        for text in [
            "10.0.0.0/8",
            "10.0.0.0/8:443,8000-8100",
            "fd00::/8:10250",
            "::1/128",
        ] {
            assert_eq!(text.parse::<AllowedTargets>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_range_of_ports_is_one_or_several_in_a_row() {
        for text in ["9100", "9400-9410", "1-65535"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
        for text in ["", "0", "x", "2-1", "0-9", "65536", "1,2"] {
            assert_eq!(text.parse::<PortRange>(), Err(InvalidPortRange), "{text:?}");
        }
    }

    #[test]
    fn contains_exactly_what_it_says() {
        let targets: AllowedTargets = "10.0.0.0/8:443,8000-8100".parse().unwrap();
        let contains = |addr: &str, port| targets.contain(addr.parse().unwrap(), port);
        assert!(contains("10.1.2.3", 443));
        assert!(contains("::ffff:10.1.2.3", 8100));
        assert!(!contains("10.1.2.3", 444));
        assert!(!contains("11.1.2.3", 443));
        assert!(!contains("fd00::1", 443));
    }

    #[test]
    fn refuses_what_it_would_have_to_guess() {
        for text in [
            "",
            "10.0.0.1",
            "10.0.0.0/33",
            "10.0.0.0/8:",
            "10.0.0.0/8:0",
            "10.0.0.0/8:9-1",
            "x/8",
            "10.0.0.0/8:80,",
        ] {
            assert_eq!(
                text.parse::<AllowedTargets>(),
                Err(InvalidAllowedTargets),
                "{text:?}"
            );
        }
    }
}
