//! What the agent may dial. A server that was taken over must not become a way into the whole
//! network of the edge.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use tokio::sync::watch;

use super::{AllowedTargets, OwnPorts, PortRemedy};
use crate::{model::AgentIdentity, tunnel::answer::NOT_ALLOWED};

/// The addresses that this machine's interfaces have at present.
pub type LocalAddresses = watch::Receiver<Arc<BTreeSet<IpAddr>>>;

/// The addresses under which clients know the node.
#[derive(Clone, Debug)]
pub enum OwnAddresses {
    /// These, always.
    Fixed(Vec<IpAddr>),
    /// Those that the agent's identity proves at present.
    Proved(watch::Receiver<AgentIdentity>),
}

/// The targets that an agent may dial: listed ports of the node's own addresses and loopback, unless
/// that is switched off, and what the operator allows besides.
#[derive(Clone, Debug)]
pub struct Policy {
    own: OwnAddresses,
    /// `None`: nothing but `allowed`.
    ports: Option<OwnPorts>,
    allowed: Vec<AllowedTargets>,
    local: Option<LocalAddresses>,
}

/// Why the agent may not dial a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It is not this node, or no address of this node may be dialled.
    #[error("{NOT_ALLOWED} (see --allow)")]
    Address,
    /// It is this node, but not one of the ports that servers may have dialled.
    #[error("{NOT_ALLOWED}: {0}")]
    Port(PortRemedy),
}

impl OwnAddresses {
    fn contain(&self, ip: IpAddr) -> bool {
        match self {
            Self::Fixed(addresses) => addresses.contains(&ip),
            Self::Proved(identity) => identity.borrow().addresses.contains(&ip),
        }
    }
}

impl Default for OwnAddresses {
    fn default() -> Self {
        Self::Fixed(Vec::new())
    }
}

impl From<Vec<IpAddr>> for OwnAddresses {
    fn from(addresses: Vec<IpAddr>) -> Self {
        Self::Fixed(addresses)
    }
}

impl From<watch::Receiver<AgentIdentity>> for OwnAddresses {
    fn from(identity: watch::Receiver<AgentIdentity>) -> Self {
        Self::Proved(identity)
    }
}

impl Policy {
    /// Own addresses and loopback on any port, and `allowed`.
    pub fn new(own: impl Into<OwnAddresses>, allowed: Vec<AllowedTargets>) -> Self {
        Self::only(own, allowed).with_own(OwnPorts::all())
    }

    /// Only `allowed`. Which addresses are the node's own matters here too, for
    /// [`destination`](Self::destination).
    pub fn only(own: impl Into<OwnAddresses>, allowed: Vec<AllowedTargets>) -> Self {
        Self {
            own: own.into(),
            ports: None,
            allowed,
            local: None,
        }
    }

    /// The same, and own addresses and loopback on these ports, instead of any others.
    #[must_use]
    pub fn with_own(mut self, ports: OwnPorts) -> Self {
        self.ports = Some(ports);
        self
    }

    /// Own addresses that are not among these are reached by loopback.
    #[must_use]
    pub fn with_local(mut self, local: Option<LocalAddresses>) -> Self {
        self.local = local;
        self
    }

    /// Where to connect for this target, if the agent may dial it.
    ///
    /// An own address that no interface has (a NAT's, or one that moved) stands for this node all
    /// the same. Out there it may be another machine's by now, so it is reached by loopback.
    pub fn destination(&self, target: SocketAddr) -> Result<SocketAddr, Denied> {
        let ip = target.ip().to_canonical();
        let port = target.port();
        self.check(ip, port)?;
        let elsewhere = self.own.contain(ip) && !ip.is_loopback() && !self.is_local(ip);
        let ip = match ip {
            IpAddr::V4(_) if elsewhere => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) if elsewhere => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Ok(SocketAddr::new(ip, port))
    }

    fn check(&self, ip: IpAddr, port: u16) -> Result<(), Denied> {
        if self.allowed.iter().any(|targets| targets.contain(ip, port)) {
            return Ok(());
        }
        match &self.ports {
            Some(ports) if self.is_this_node(ip) => ports.check(ip, port).map_err(Denied::Port),
            Some(_) | None => Err(Denied::Address),
        }
    }

    /// The machine's own interfaces are this node as well, whether or not clients know their
    /// addresses.
    fn is_this_node(&self, ip: IpAddr) -> bool {
        let local = self.local.as_ref();
        ip.is_loopback()
            || self.own.contain(ip)
            || local.is_some_and(|local| local.borrow().contains(&ip))
    }

    /// An address counts as local where nobody tells.
    fn is_local(&self, ip: IpAddr) -> bool {
        let local = self.local.as_ref();
        local.is_none_or(|local| local.borrow().contains(&ip))
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
        let target = SocketAddr::new(ip.parse().unwrap(), port);
        policy.destination(target).is_ok()
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
    fn own_addresses_follow_what_the_identity_proves() {
        let identity = |ip: &str| AgentIdentity {
            node: "edge-1".parse().unwrap(),
            addresses: vec![ip.parse().unwrap()],
            key: "k".into(),
        };
        let (identity_tx, identities) = watch::channel(identity("10.78.0.11"));
        let policy = Policy::new(identities, Vec::new());
        assert!(allows(&policy, "10.78.0.11", 10250));
        identity_tx.send_replace(identity("10.78.0.12"));
        assert!(allows(&policy, "10.78.0.12", 10250));
        assert!(!allows(&policy, "10.78.0.11", 10250));
    }

    #[test]
    fn the_default_can_be_switched_off() {
        let policy = Policy::only(
            vec!["10.78.0.11".parse().unwrap()],
            vec!["127.0.0.1/32:10250".parse().unwrap()],
        );
        assert!(allows(&policy, "127.0.0.1", 10250));
        assert!(!allows(&policy, "127.0.0.1", 22));
        assert!(!allows(&policy, "10.78.0.11", 10250));
    }

    #[test]
    fn an_own_address_that_this_machine_lacks_is_reached_by_loopback() {
        let own = ["10.78.0.11", "198.51.100.7", "2001:db8::7"];
        let own: Vec<IpAddr> = own.map(|ip| ip.parse().unwrap()).to_vec();
        let allowed = vec!["198.51.100.0/24:10250".parse().unwrap()];
        let (local_tx, local) = watch::channel(Arc::new(BTreeSet::from([own[0]])));
        let policy = Policy::new(own.clone(), allowed.clone()).with_local(Some(local.clone()));
        let leads = |policy: &Policy, target: &str| {
            let destination = policy.destination(target.parse().unwrap());
            destination.map(|addr| addr.to_string()).unwrap_or_default()
        };
        for (target, destination) in [
            ("10.78.0.11:10250", "10.78.0.11:10250"),
            ("198.51.100.7:10250", "127.0.0.1:10250"),
            ("[::ffff:198.51.100.7]:10250", "127.0.0.1:10250"),
            ("[2001:db8::7]:10250", "[::1]:10250"),
            ("127.1.2.3:10250", "127.1.2.3:10250"),
            ("198.51.100.8:10250", "198.51.100.8:10250"),
            ("198.51.100.8:22", ""),
        ] {
            assert_eq!(leads(&policy, target), destination, "{target}");
        }
        // An address may move while the agent runs.
        local_tx.send_replace(Arc::new(BTreeSet::from([own[1]])));
        assert_eq!(leads(&policy, "198.51.100.7:22"), "198.51.100.7:22");
        assert_eq!(leads(&policy, "10.78.0.11:22"), "127.0.0.1:22");

        let strict = Policy::only(own, allowed).with_local(Some(local));
        local_tx.send_replace(Arc::default());
        assert_eq!(leads(&strict, "198.51.100.7:10250"), "127.0.0.1:10250");
        assert_eq!(leads(&strict, "198.51.100.7:22"), "");
    }
}
