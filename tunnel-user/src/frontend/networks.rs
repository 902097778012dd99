//! Who may use the redirect, by address, and who is of this machine.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use tokio::sync::watch;

use crate::{model::PeerAddr, tunnel::Client};

/// The networks of clients. This machine's own addresses are always among them.
#[derive(Clone)]
pub struct ClientNetworks {
    /// Empty: any.
    pub networks: Vec<IpNet>,
    /// Tells who is of this machine.
    pub own_addresses: OwnAddresses,
}

/// This machine's addresses, by which its own processes are known.
#[derive(Clone)]
pub struct OwnAddresses(pub watch::Receiver<Arc<BTreeSet<IpAddr>>>);

impl ClientNetworks {
    /// Whether a client is let through.
    pub(super) fn admit(&self, peer: PeerAddr) -> bool {
        let ip = peer.0.ip().to_canonical();
        self.networks.is_empty()
            || self.networks.iter().any(|net| net.contains(&ip))
            || self.own_addresses.is_this_machine(peer)
    }
}

impl OwnAddresses {
    /// Whether it is a process of this machine, in its own network namespace.
    pub(super) fn is_this_machine(&self, peer: PeerAddr) -> bool {
        let ip = peer.0.ip().to_canonical();
        ip.is_loopback() || self.0.borrow().contains(&ip)
    }

    /// Whose places it takes.
    pub(super) fn client_of(&self, peer: PeerAddr) -> Client {
        if self.is_this_machine(peer) {
            Client::Machine
        } else {
            Client::Address(peer.0.ip().to_canonical())
        }
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
            own_addresses: OwnAddresses(watch::Sender::new(Arc::new(own.clone())).subscribe()),
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
