//! The ranges from which pods get their addresses, one by one.

use std::{net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;

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

    #[test]
    fn a_range_goes_from_its_first_address_to_its_last() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
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
