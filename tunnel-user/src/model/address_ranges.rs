//! Many ranges of addresses: those of all Nodes' pods, those of clients.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Answers for ten thousand ranges in a few steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressRanges {
    /// Sorted, none in another.
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
}

impl AddressRanges {
    /// Whether the address is in any of them, v4-mapped IPv6 being the same as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
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

impl FromIterator<IpNet> for AddressRanges {
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
        let ranges: AddressRanges = ranges
            .map(|range| range.parse().unwrap())
            .into_iter()
            .collect();
        for (address, inside) in [
            ("10.243.255.255", false),
            ("10.244.0.0", true),
            ("10.244.1.255", true),
            ("::ffff:10.244.1.255", true),
            ("10.244.2.0", false),
            ("10.245.9.9", true),
            ("fd00::9", true),
            ("fd00:0:0:1::9", false),
        ] {
            assert_eq!(ranges.contains(ip(address)), inside, "{address}");
        }
        assert!(!AddressRanges::default().contains(ip("10.0.0.1")));
    }
}
