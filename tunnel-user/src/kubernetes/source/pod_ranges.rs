//! The ranges from which pods get their addresses, of all Nodes.

use std::{net::IpAddr, ops::RangeInclusive};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Answers for ten thousand ranges in a few steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PodRanges {
    /// Sorted, none in another.
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
}

impl PodRanges {
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => {
                let after = self.v4.partition_point(|range| range.network() <= address);
                after > 0 && self.v4[after - 1].contains(&address)
            }
            IpAddr::V6(address) => {
                let after = self.v6.partition_point(|range| range.network() <= address);
                after > 0 && self.v6[after - 1].contains(&address)
            }
        }
    }
}

impl FromIterator<IpNet> for PodRanges {
    fn from_iter<I: IntoIterator<Item = IpNet>>(ranges: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for range in ranges {
            match range {
                IpNet::V4(range) => v4.push(range),
                IpNet::V6(range) => v6.push(range),
            }
        }
        Self {
            v4: Ipv4Net::aggregate(&v4),
            v6: Ipv6Net::aggregate(&v6),
        }
    }
}

/// From the first to the last.
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

    #[test]
    fn an_address_is_found_in_whichever_range_it_is() {
        let ranges = [
            "10.244.0.0/24",
            "10.244.1.0/24",
            "10.245.0.0/16",
            "fd00::/64",
        ];
        let ranges: PodRanges = ranges
            .map(|range| range.parse().unwrap())
            .into_iter()
            .collect();
        for (address, inside) in [
            ("10.243.255.255", false),
            ("10.244.0.0", true),
            ("10.244.1.255", true),
            ("10.244.2.0", false),
            ("10.245.9.9", true),
            ("fd00::9", true),
            ("fd00:0:0:1::9", false),
        ] {
            assert_eq!(ranges.contains(ip(address)), inside, "{address}");
        }
        assert!(!PodRanges::default().contains(ip("10.0.0.1")));
    }

    #[test]
    fn a_range_goes_from_its_first_address_to_its_last() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("10.0.0.1/32", "10.0.0.1", "10.0.0.2"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("fd00::/16", "fd00::1", "fd01::"),
        ] {
            let range = addresses_in(range.parse().unwrap());
            assert!(range.contains(&ip(inside)) && !range.contains(&ip(outside)));
        }
    }
}
