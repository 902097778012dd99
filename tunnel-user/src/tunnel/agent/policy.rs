//! What the agent may dial. A server that was taken over must not become a way into the whole
//! network of the edge.

use std::net::IpAddr;

use super::AllowedTargets;

/// The targets that an agent may dial: the node's own addresses and loopback on any port, unless
/// that is switched off, and what the operator allows besides.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    own: Vec<IpAddr>,
    own_allowed: bool,
    allowed: Vec<AllowedTargets>,
}

impl Policy {
    /// Own addresses and loopback, and `allowed`.
    pub fn new(own: Vec<IpAddr>, allowed: Vec<AllowedTargets>) -> Self {
        Self {
            own,
            own_allowed: true,
            allowed,
        }
    }

    /// Only `allowed`.
    pub fn only(allowed: Vec<AllowedTargets>) -> Self {
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
        own || self.allowed.iter().any(|targets| targets.contain(ip, port))
    }
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
        let policy = policy(&["10.0.0.0/8:443,8000-8100", "fd00::/8:22", "192.0.2.7/32"]);
        assert!(allows(&policy, "10.1.2.3", 443) && allows(&policy, "10.1.2.3", 8050));
        assert!(!allows(&policy, "10.1.2.3", 444));
        assert!(allows(&policy, "fd00::5", 22) && !allows(&policy, "fd00::5", 23));
        assert!(allows(&policy, "192.0.2.7", 1) && !allows(&policy, "192.0.2.8", 1));
    }

    #[test]
    fn the_default_can_be_switched_off() {
        let policy = Policy::only(vec!["127.0.0.1/32:10250".parse().unwrap()]);
        assert!(allows(&policy, "127.0.0.1", 10250));
        assert!(!allows(&policy, "127.0.0.1", 22));
    }
}
