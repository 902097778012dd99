//! What the agent may dial. A server that was taken over must not become a way into the whole
//! network of the edge.

use std::{net::IpAddr, ops::RangeInclusive, str::FromStr};

use ipnet::IpNet;

/// A range of TCP ports.
pub type PortRange = RangeInclusive<u16>;

/// The targets that an agent may dial: the node's own addresses and loopback on any port, unless
/// that is switched off, and what the operator allows besides.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    own: Vec<IpAddr>,
    own_allowed: bool,
    allowed: Vec<AllowedTarget>,
}

/// A network, and the ports in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedTarget {
    network: IpNet,
    ports: Vec<PortRange>,
}

/// Why a string is not an [`AllowedTarget`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a target to allow: expected a network or address, then a colon and ports if \
     not all, as in 10.0.0.0/8:443,8000-8100 or [fd00::/8]:443"
)]
pub struct InvalidAllowedTarget(String);

impl Policy {
    /// Own addresses and loopback, and `allowed`.
    pub fn new(own: Vec<IpAddr>, allowed: Vec<AllowedTarget>) -> Self {
        Self {
            own,
            own_allowed: true,
            allowed,
        }
    }

    /// Only `allowed`.
    pub fn only(allowed: Vec<AllowedTarget>) -> Self {
        Self {
            own: Vec::new(),
            own_allowed: false,
            allowed,
        }
    }

    /// Whether the agent may dial this.
    pub fn allows(&self, ip: IpAddr, port: u16) -> bool {
        let ip = ip.to_canonical();
        let own = self.own_allowed && (ip.is_loopback() || self.own.contains(&ip));
        own || self.allowed.iter().any(|target| target.covers(ip, port))
    }
}

impl AllowedTarget {
    fn covers(&self, ip: IpAddr, port: u16) -> bool {
        let port_covered =
            self.ports.is_empty() || self.ports.iter().any(|range| range.contains(&port));
        port_covered && self.network.contains(&ip)
    }
}

impl FromStr for AllowedTarget {
    type Err = InvalidAllowedTarget;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| InvalidAllowedTarget(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<AllowedTarget> {
    let (network, ports) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (network, rest) = bracketed.split_once(']')?;
            (
                network,
                rest.strip_prefix(':').or(rest.is_empty().then_some(""))?,
            )
        }
        None if network(text).is_some() => (text, ""),
        None => text
            .rsplit_once(':')
            .filter(|(_, ports)| !ports.is_empty())?,
    };
    let ports = ports
        .split(',')
        .filter(|range| !range.is_empty())
        .map(port_range);
    Some(AllowedTarget {
        network: self::network(network)?,
        ports: ports.collect::<Option<_>>()?,
    })
}

fn network(text: &str) -> Option<IpNet> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn port_range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = first.parse().ok()?..=last.parse().ok()?;
    (!range.is_empty() && *range.start() > 0).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allowed: &[&str]) -> Policy {
        let allowed = allowed.iter().map(|text| text.parse().unwrap()).collect();
        Policy::new(vec!["10.78.0.11".parse().unwrap()], allowed)
    }

    fn allows(policy: &Policy, ip: &str, port: u16) -> bool {
        policy.allows(ip.parse().unwrap(), port)
    }

    #[test]
    fn the_node_itself_is_allowed_and_its_neighbours_are_not() {
        let policy = policy(&[]);
        for ip in [
            "10.78.0.11",
            "::ffff:10.78.0.11",
            "127.0.0.1",
            "127.1.2.3",
            "::1",
        ] {
            assert!(allows(&policy, ip, 10250), "{ip}");
        }
        for ip in ["10.78.0.12", "169.254.169.254", "0.0.0.0", "::"] {
            assert!(!allows(&policy, ip, 10250), "{ip}");
        }
    }

    #[test]
    fn what_the_operator_allows_is_added() {
        let policy = policy(&["10.0.0.0/8:443,8000-8100", "[fd00::/8]:22", "192.0.2.7"]);
        assert!(allows(&policy, "10.1.2.3", 443) && allows(&policy, "10.1.2.3", 8050));
        assert!(!allows(&policy, "10.1.2.3", 444));
        assert!(allows(&policy, "fd00::5", 22) && !allows(&policy, "fd00::5", 23));
        assert!(allows(&policy, "192.0.2.7", 1) && !allows(&policy, "192.0.2.8", 1));
    }

    #[test]
    fn the_default_can_be_switched_off() {
        let policy = Policy::only(vec!["127.0.0.1:10250".parse().unwrap()]);
        assert!(allows(&policy, "127.0.0.1", 10250));
        assert!(!allows(&policy, "127.0.0.1", 22));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "host:1",
            "10.0.0.0/8:",
            "10.0.0.0/8:0",
            "10.0.0.0/8:9-1",
            "[fd00::/8",
        ] {
            assert!(
                text.parse::<AllowedTarget>().is_err(),
                "{text:?} was accepted"
            );
        }
        assert!("fd00::/8".parse::<AllowedTarget>().is_ok());
    }
}
