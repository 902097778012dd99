//! Addresses and ports as the maps hold them.
#![expect(
    clippy::inline_always,
    reason = "a call would pass pointers that the verifier loses track of"
)]

use core::{
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

/// An IP address: 16 octets in network order, IPv4 as v4-mapped.
///
/// Aligned for the programs, which move it by words.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Eq)]
pub struct Address {
    /// The octets, as in an IPv6 header.
    pub octets: [u8; 16],
}

/// An address and a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: Address,
    /// The port, in host order.
    pub port: u16,
    /// Always 0: endpoints are parts of map keys.
    pub reserved: u16,
}

const _: () = assert!(size_of::<Address>() == 16 && size_of::<Endpoint>() == 20);

impl Address {
    /// No address.
    pub const UNSPECIFIED: Self = Self { octets: [0; 16] };

    /// The address whose words, as they lie in memory, are `words`.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self {
            // SAFETY: both are 16 bytes without invalid values.
            octets: unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) },
        }
    }

    /// The v4-mapped address of an IPv4 address whose word, as it lies in memory, is `word`.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self::from_words([0, 0, 0xffff_u32.to_be(), word])
    }

    /// The address as words, as they lie in memory.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        // SAFETY: the type is aligned for u32, and any 16 bytes are valid words.
        unsafe { *core::ptr::from_ref(self).cast::<[u32; 4]>() }
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let words = self.words();
        words[0] == 0 && words[1] == 0 && words[2] == 0xffff_u32.to_be()
    }

    /// Whether this stands for "no address".
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        let words = self.words();
        words[0] | words[1] | words[2] | words[3] == 0
    }
}

/// By words: the programs have no `memcmp`.
impl PartialEq for Address {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.words(), other.words());
        (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) == 0
    }
}

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.octets.hash(state);
    }
}

impl Endpoint {
    /// The endpoint of this address and port.
    #[inline(always)]
    pub const fn new(address: Address, port: u16) -> Self {
        Self {
            address,
            port,
            reserved: 0,
        }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        let octets = match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        Self { octets }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        Self::from(Ipv6Addr::from(address.octets)).to_canonical()
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(socket: SocketAddr) -> Self {
        Self::new(socket.ip().into(), socket.port())
    }
}

impl From<Endpoint> for SocketAddr {
    fn from(endpoint: Endpoint) -> Self {
        Self::new(endpoint.address.into(), endpoint.port)
    }
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, every byte is a field, any bytes are valid.
unsafe impl aya::Pod for Address {}
#[cfg(feature = "user")]
// SAFETY: `repr(C)`, every byte is a field, any bytes are valid.
unsafe impl aya::Pod for Endpoint {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_is_kept_as_v4_mapped() {
        let address = Address::from("10.1.2.3".parse::<IpAddr>().unwrap());
        assert_eq!(address.octets[10..], [0xff, 0xff, 10, 1, 2, 3]);
        assert!(address.is_v4());
        assert_eq!(
            address,
            Address::from_v4_word(u32::from_ne_bytes([10, 1, 2, 3]))
        );
        assert_eq!(
            address,
            Address::from("::ffff:10.1.2.3".parse::<IpAddr>().unwrap())
        );
        assert_eq!(IpAddr::from(address), "10.1.2.3".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn addresses_differ_when_any_word_differs() {
        let base = Address::from_words([1, 2, 3, 4]);
        for i in 0..4 {
            let mut words = [1, 2, 3, 4];
            words[i] ^= 0x0100_0000;
            assert_ne!(base, Address::from_words(words), "word {i}");
        }
        assert!(!base.is_v4() && !base.is_unspecified());
    }

    #[test]
    fn an_endpoint_survives_the_way_through_a_map() {
        for text in ["10.0.0.1:10250", "[fd00::1]:10255"] {
            let socket: SocketAddr = text.parse().unwrap();
            assert_eq!(SocketAddr::from(Endpoint::from(socket)), socket);
        }
    }
}
