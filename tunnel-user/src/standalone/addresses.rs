//! Which addresses a node may have.

use std::net::IpAddr;

use crate::model::{NodeName, UnfitAddress};

/// How many addresses an agent may propose; a machine with more names the ones that count.
const MAX_PROPOSED: usize = 64;

/// Why an address cannot be a node's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableAddress {
    /// Means something else on every machine, or nothing to clients.
    #[error("{address} is {kind}, which does not lead to one node")]
    Kind {
        /// The address.
        address: IpAddr,
        /// What it is.
        kind: UnfitAddress,
    },
    /// Connections to it would go to two machines.
    #[error(
        "{address} belongs to node {owner}; remove that node first with `culvert node remove \
         {owner}`, or give this one other addresses with --address"
    )]
    Taken {
        /// The address.
        address: IpAddr,
        /// The node that has it.
        owner: NodeName,
    },
    /// The operator has not set it aside for nodes.
    #[error(
        "{address} is in none of the server's --node-networks: give the node another address with \
         --address or --node-ip, or add its network to --node-networks of the server"
    )]
    OutsideNodeNetworks {
        /// The address.
        address: IpAddr,
    },
    /// The server's own address is never redirected.
    #[error("{address} is an address of the server itself")]
    Server {
        /// The address.
        address: IpAddr,
    },
}

/// What became of the addresses that an agent proposed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) taken: Vec<IpAddr>,
    pub(super) skipped: Vec<UnusableAddress>,
}

/// The address in its plain notation if it is of a kind that a node can have.
pub fn usable(address: IpAddr) -> Result<IpAddr, UnusableAddress> {
    let address = address.to_canonical();
    match UnfitAddress::check(address) {
        Some(kind) => Err(UnusableAddress::Kind { address, kind }),
        None => Ok(address),
    }
}

/// Picks from what an agent proposed. `owner` says which other node has an address.
pub(super) fn choose(
    proposed: &[IpAddr],
    owner: impl Fn(IpAddr) -> Option<NodeName>,
    may_have: impl Fn(IpAddr) -> Result<(), UnusableAddress>,
) -> Chosen {
    let mut chosen = Chosen::default();
    for address in proposed.iter().take(MAX_PROPOSED) {
        let verdict = usable(*address).and_then(|address| match owner(address) {
            Some(owner) => Err(UnusableAddress::Taken { address, owner }),
            None => may_have(address).map(|()| address),
        });
        match verdict {
            Ok(address) if chosen.taken.contains(&address) => {}
            Ok(address) => chosen.taken.push(address),
            Err(unusable) => chosen.skipped.push(unusable),
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn takes_plain_unicast_addresses_once_and_says_why_it_leaves_the_others() {
        let proposed = ips(&[
            "127.0.0.1",
            "::1",
            "0.0.0.0",
            "224.0.0.1",
            "169.254.1.1",
            "fe80::1",
            "ff02::1",
            "255.255.255.255",
            "10.0.0.1",
            "::ffff:10.0.0.1",
            "fd00::1",
            "10.0.0.2",
            "10.0.0.3",
        ]);
        let other: NodeName = "other".parse().unwrap();
        let chosen = choose(
            &proposed,
            |ip| (ip == "10.0.0.2".parse::<IpAddr>().unwrap()).then(|| other.clone()),
            |address| {
                if address == "10.0.0.3".parse::<IpAddr>().unwrap() {
                    Err(UnusableAddress::Server { address })
                } else {
                    Ok(())
                }
            },
        );
        assert_eq!(chosen.taken, ips(&["10.0.0.1", "fd00::1"]));
        let reasons: Vec<String> = chosen.skipped.iter().map(ToString::to_string).collect();
        for (reason, word) in reasons.iter().zip([
            "loopback",
            "loopback",
            "unspecified",
            "multicast",
            "link-local",
            "link-local",
            "multicast",
            "broadcast",
            "culvert node remove other",
            "server itself",
        ]) {
            assert!(reason.contains(word), "{reason} lacks {word}");
        }
        assert_eq!(reasons.len(), 10);
    }

    #[test]
    fn does_not_read_an_endless_list() {
        let proposed: Vec<IpAddr> = (0..1000_u32)
            .map(|n| IpAddr::from((0x0a00_0000 + n).to_be_bytes()))
            .collect();
        assert_eq!(
            choose(&proposed, |_| None, |_| Ok(())).taken.len(),
            MAX_PROPOSED
        );
    }
}
