//! Ranges of local addresses that stand for nodes: a connect is sent to the address of its node's
//! *slot*, and whoever accepts it reads the slot back from the socket's own address.
//!
//! ```text
//!  base     127.64.0.0     fd63:756c:7665:7274::
//!  slot 5   127.64.0.5     fd63:756c:7665:7274::5
//! ```
#![expect(
    clippy::inline_always,
    reason = "a call would pass pointers that the verifier loses track of"
)]

use crate::Address;

/// Addresses that differ in their last bits only.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first address; the bits that count slots are 0.
    pub base: Address,
    /// Slots below this number have an address in it; 0: the range is not used.
    pub slots: u64,
}

/// Every range of a server. One that is not used has no slots.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    /// Where IPv4 connects of the server's own network namespace go: within 127.0.0.0/8, which needs
    /// no route and which no other namespace reaches.
    pub host: Range,
    /// Where IPv4 connects of other namespaces, those of pods, go: routed to the loopback interface.
    pub pods: Range,
    /// Where native IPv6 connects of any namespace go, likewise routed.
    pub v6: Range,
}

const _: () = assert!(size_of::<Range>() == 24 && size_of::<Ranges>() == 72);

impl Range {
    /// A range that is not used.
    pub const OFF: Self = Self {
        base: Address::UNSPECIFIED,
        slots: 0,
    };

    /// The address that stands for a slot; `None` if the range has none for it. No node has slot 0.
    #[inline(always)]
    pub const fn address(&self, slot: u32) -> Option<Address> {
        if slot == 0 || slot as u64 >= self.slots {
            return None;
        }
        let [a, b, c, d] = self.base.words();
        Some(Address::from_words([a, b, c, d | slot.to_be()]))
    }

    /// The slot that an address stands for, 0 included; `None` if it is not in the range.
    #[inline(always)]
    pub const fn slot(&self, address: &Address) -> Option<u32> {
        let (own, other) = (self.base.words(), address.words());
        if (own[0] ^ other[0]) | (own[1] ^ other[1]) | (own[2] ^ other[2]) != 0 {
            return None;
        }
        let slot = u32::from_be(own[3] ^ other[3]);
        if (slot as u64) < self.slots {
            Some(slot)
        } else {
            None
        }
    }
}

impl Ranges {
    /// No range is used.
    pub const OFF: Self = Self {
        host: Range::OFF,
        pods: Range::OFF,
        v6: Range::OFF,
    };
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, without padding (asserted above), any bytes are valid.
unsafe impl aya::Pod for Range {}
#[cfg(feature = "user")]
// SAFETY: `repr(C)`, without padding (asserted above), any bytes are valid.
unsafe impl aya::Pod for Ranges {}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    fn range(base: &str, slots: u64) -> Range {
        let base: IpAddr = base.parse().unwrap();
        Range {
            base: base.into(),
            slots,
        }
    }

    fn address(ip: &str) -> Address {
        ip.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn a_slot_has_one_address_and_the_address_leads_back() {
        for (base, slot, expected) in [
            ("127.64.0.0", 5, "127.64.0.5"),
            ("127.64.0.0", 131_071, "127.65.255.255"),
            ("198.18.0.0", 256, "198.18.1.0"),
            (
                "fd63:756c:7665:7274::",
                0x1_0002,
                "fd63:756c:7665:7274::1:2",
            ),
        ] {
            let range = range(base, 131_072);
            assert_eq!(range.address(slot), Some(address(expected)));
            assert_eq!(range.slot(&address(expected)), Some(slot));
        }
    }

    #[test]
    fn what_is_outside_has_no_slot() {
        let host = range("127.64.0.0", 131_072);
        for outside in ["127.66.0.0", "127.0.0.1", "10.0.0.1", "fd63::5", "::7f40:5"] {
            assert_eq!(host.slot(&address(outside)), None, "{outside}");
        }
        assert_eq!(host.address(0), None);
        assert_eq!(host.address(131_072), None);
        assert_eq!(Range::OFF.address(1), None);
        assert_eq!(Range::OFF.slot(&Address::UNSPECIFIED), None);
    }
}
