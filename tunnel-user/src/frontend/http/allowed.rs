//! Who may use the port, by address.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use tokio::sync::watch;

use crate::{
    model::{AddressRanges, PeerAddr},
    tunnel::Client,
};

/// The networks of clients. This machine's own processes always may: they reach the same ports by the redirect.
#[derive(Clone)]
pub struct AllowedSources {
    /// Besides this machine.
    pub networks: watch::Receiver<Arc<AddressRanges>>,
    /// This machine's addresses.
    pub own_addresses: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
}

impl AllowedSources {
    pub(super) fn admit(&self, peer: PeerAddr) -> bool {
        self.client(peer) == Client::Machine || self.networks.borrow().contains(peer.0.ip())
    }

    /// Whose places its requests take.
    pub(super) fn client(&self, peer: PeerAddr) -> Client {
        let ip = peer.0.ip().to_canonical();
        if ip.is_loopback() || self.own_addresses.borrow().contains(&ip) {
            Client::Machine
        } else {
            Client::Address(ip)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_the_networks_are_let_in_and_nobody_else_is() {
        let own = BTreeSet::from(["10.77.0.1".parse().unwrap()]);
        let networks: AddressRanges = ["10.244.0.0/24".parse().unwrap()].into_iter().collect();
        let networks = watch::Sender::new(Arc::new(networks));
        let allowed = AllowedSources {
            networks: networks.subscribe(),
            own_addresses: watch::Sender::new(Arc::new(own)).subscribe(),
        };
        let admits = |peer: &str| allowed.admit(PeerAddr::of(peer.parse().unwrap()));
        for peer in [
            "127.0.0.1:1",
            "[::1]:1",
            "10.77.0.1:1",
            "10.244.0.7:1",
            "[::ffff:10.244.0.7]:1",
        ] {
            assert!(admits(peer), "{peer}");
        }
        for peer in ["10.244.1.7:1", "10.77.0.2:1", "[fd00::1]:1"] {
            assert!(!admits(peer), "{peer}");
        }
        networks.send_replace(Arc::default());
        assert!(!admits("10.244.0.7:1"), "the networks are followed");
    }
}
