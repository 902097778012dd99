//! Who may use the port, by address.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    frontend::OwnAddresses,
    model::{AddressRanges, PeerAddr},
};

/// The networks of clients. This machine's own processes always may: they reach the same ports by the redirect.
#[derive(Clone)]
pub struct AllowedSources {
    /// Besides this machine.
    pub networks: watch::Receiver<Arc<AddressRanges>>,
    /// Tells who is of this machine.
    pub own_addresses: OwnAddresses,
}

impl AllowedSources {
    pub(super) fn admit(&self, peer: PeerAddr) -> bool {
        self.own_addresses.is_this_machine(peer) || self.networks.borrow().contains(peer.0.ip())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn this_machine_and_the_networks_are_let_in_and_nobody_else_is() {
        let own = BTreeSet::from(["10.77.0.1".parse().unwrap()]);
        let networks: AddressRanges = ["10.244.0.0/24".parse().unwrap()].into_iter().collect();
        let networks = watch::Sender::new(Arc::new(networks));
        let allowed = AllowedSources {
            networks: networks.subscribe(),
            own_addresses: OwnAddresses(watch::Sender::new(Arc::new(own)).subscribe()),
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
