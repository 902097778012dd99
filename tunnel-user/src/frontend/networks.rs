//! Who may use the redirect, by address.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use tokio::sync::watch;

use crate::model::PeerAddr;

/// The networks of clients. This machine's own addresses are always among them.
#[derive(Clone)]
pub struct ClientNetworks {
    /// Empty: any.
    pub networks: Vec<IpNet>,
    /// This machine's addresses.
    pub own_addresses: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
}

impl ClientNetworks {
    /// Whether a client is let through.
    pub(super) fn admit(&self, peer: PeerAddr) -> bool {
        let ip = peer.0.ip().to_canonical();
        self.networks.is_empty()
            || self.networks.iter().any(|net| net.contains(&ip))
            || self.is_this_machine(peer)
    }

    /// Whether it is a process of this machine, in its own network namespace.
    pub(super) fn is_this_machine(&self, peer: PeerAddr) -> bool {
        let ip = peer.0.ip().to_canonical();
        ip.is_loopback() || self.own_addresses.borrow().contains(&ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_and_the_networks_are_let_through() {
        let own = BTreeSet::from(["10.77.0.1".parse().unwrap()]);
        let networks = |networks: &[&str]| ClientNetworks {
            networks: networks.iter().map(|net| net.parse().unwrap()).collect(),
            own_addresses: watch::Sender::new(Arc::new(own.clone())).subscribe(),
        };
        let admits = |clients: &ClientNetworks, peer: &str| {
            clients.admit(PeerAddr::of(peer.parse().unwrap()))
        };
        let some = networks(&["10.244.0.0/24"]);
        for peer in [
            "10.244.0.7:1",
            "[::ffff:10.244.0.7]:1",
            "127.0.0.1:1",
            "10.77.0.1:1",
        ] {
            assert!(admits(&some, peer), "{peer}");
        }
        for peer in ["10.244.1.7:1", "[fd00::1]:1"] {
            assert!(!admits(&some, peer), "{peer}");
        }
        assert!(admits(&networks(&[]), "[fd00::1]:1"));
    }
}
