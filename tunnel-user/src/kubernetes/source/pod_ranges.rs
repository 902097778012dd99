//! The ranges from which Nodes say their pods get addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeInclusive,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::model::NodeName;

/// Every range, and who says it. That ranges may lie in each other is why an address is looked for once for each length
/// that there is; in a cluster all have one length of each family.
#[derive(Debug, Default)]
pub(super) struct PodRanges {
    by_range: BTreeMap<IpNet, BTreeSet<NodeName>>,
    v4_lengths: BTreeMap<u8, usize>,
    v6_lengths: BTreeMap<u8, usize>,
}

impl PodRanges {
    /// The Node says it.
    pub(super) fn insert(&mut self, range: IpNet, node: &NodeName) {
        let nodes = self.by_range.entry(range.trunc()).or_default();
        if nodes.is_empty() {
            *self.lengths(range).entry(range.prefix_len()).or_default() += 1;
        }
        let nodes = self.by_range.entry(range.trunc()).or_default();
        nodes.insert(node.clone());
    }

    /// The Node no longer says it.
    pub(super) fn remove(&mut self, range: IpNet, node: &NodeName) {
        let Some(nodes) = self.by_range.get_mut(&range.trunc()) else {
            return;
        };
        nodes.remove(node);
        if nodes.is_empty() {
            self.by_range.remove(&range.trunc());
            let length = range.prefix_len();
            match self.lengths(range).get_mut(&length) {
                Some(ranges) if *ranges > 1 => *ranges -= 1,
                _ => drop(self.lengths(range).remove(&length)),
            }
        }
    }

    /// The ranges that the address is in.
    pub(super) fn around(&self, address: IpAddr) -> impl Iterator<Item = IpNet> {
        let address = address.to_canonical();
        let lengths = match address {
            IpAddr::V4(_) => &self.v4_lengths,
            IpAddr::V6(_) => &self.v6_lengths,
        };
        let ranges = lengths.keys().filter_map(move |length| match address {
            IpAddr::V4(address) => Ipv4Net::new(address, *length).ok().map(IpNet::V4),
            IpAddr::V6(address) => Ipv6Net::new(address, *length).ok().map(IpNet::V6),
        });
        let ranges = ranges.map(|range| range.trunc());
        ranges.filter(|range| self.by_range.contains_key(range))
    }

    /// Who says the range, in order.
    pub(super) fn nodes_of(&self, range: IpNet) -> impl Iterator<Item = &NodeName> {
        self.by_range.get(&range).into_iter().flatten()
    }

    fn lengths(&mut self, range: IpNet) -> &mut BTreeMap<u8, usize> {
        match range {
            IpNet::V4(_) => &mut self.v4_lengths,
            IpNet::V6(_) => &mut self.v6_lengths,
        }
    }
}

/// From the first address to the last.
pub(super) fn addresses_in(range: IpNet) -> RangeInclusive<IpAddr> {
    match range {
        IpNet::V4(range) => range.network().into()..=range.broadcast().into(),
        IpNet::V6(range) => range.network().into()..=range.broadcast().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_goes_from_its_first_address_to_its_last() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("10.0.0.1/32", "10.0.0.1", "10.0.0.2"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("fd00::/16", "fd00::1", "fd01::"),
        ] {
            let range = addresses_in(net(range));
            assert!(range.contains(&ip(inside)) && !range.contains(&ip(outside)));
        }
    }

    #[test]
    fn an_address_is_in_every_range_around_it_while_a_node_says_so() {
        let (one, other): (NodeName, NodeName) = ("e1".parse().unwrap(), "e2".parse().unwrap());
        let mut ranges = PodRanges::default();
        for (range, node) in [
            ("10.244.1.0/24", &one),
            ("10.244.1.77/24", &other),
            ("10.244.0.0/16", &other),
            ("fd00::/64", &one),
        ] {
            ranges.insert(net(range), node);
        }
        let around = |ranges: &PodRanges, address| {
            let around = ranges.around(ip(address));
            around.map(|range| range.to_string()).collect::<Vec<_>>()
        };
        let both = ["10.244.0.0/16", "10.244.1.0/24"];
        assert_eq!(around(&ranges, "10.244.1.9"), both);
        assert_eq!(around(&ranges, "10.244.2.9"), ["10.244.0.0/16"]);
        assert_eq!(around(&ranges, "fd00::9"), ["fd00::/64"]);
        assert!(around(&ranges, "10.245.0.1").is_empty());
        let of: Vec<_> = ranges.nodes_of(net("10.244.1.0/24")).collect();
        assert_eq!(of, [&one, &other]);
        ranges.remove(net("10.244.1.0/24"), &one);
        assert_eq!(around(&ranges, "10.244.1.9"), both);
        ranges.remove(net("10.244.1.0/24"), &other);
        assert_eq!(around(&ranges, "10.244.1.9"), ["10.244.0.0/16"]);
    }
}
