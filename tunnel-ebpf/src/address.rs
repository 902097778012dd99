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
/// Aligned for the programs, which move it by halves; see [`Endpoint`].
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Eq)]
pub struct Address {
    /// The octets, as in an IPv6 header.
    pub octets: [u8; 16],
}

/// An address and a port.
///
/// It consists of whole 8 bytes: kernels before 6.11 let a program without `CAP_PERFMON` write to
/// its stack by whole 8 bytes, but refuse it to write to a part of what it wrote as a part before
/// ("attempt to corrupt spilled pointer on stack").
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: Address,
    /// The port.
    pub port: u64,
}

const _: () = assert!(size_of::<Address>() == 16 && size_of::<Endpoint>() == 24);

impl Address {
    /// No address.
    pub const UNSPECIFIED: Self = Self { octets: [0; 16] };

    /// The address whose words, as they lie in memory, are `words`.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self::from_halves([joined(words[0], words[1]), joined(words[2], words[3])])
    }

    /// The v4-mapped address of an IPv4 address whose word, as it lies in memory, is `word`.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self::from_halves([0, joined(V4_MAPPED, word)])
    }

    /// The address as words, as they lie in memory.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        let [[a, b], [c, d]] = [parted(self.halves()[0]), parted(self.halves()[1])];
        [a, b, c, d]
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.halves()[0] == 0 && self.words()[2] == V4_MAPPED
    }

    /// Whether this stands for "no address".
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        let halves = self.halves();
        halves[0] | halves[1] == 0
    }

    #[inline(always)]
    pub(crate) const fn halves(&self) -> [u64; 2] {
        // SAFETY: the type is aligned for u64, and any 16 bytes are valid halves.
        unsafe { *core::ptr::from_ref(self).cast::<[u64; 2]>() }
    }

    /// The address whose halves, as they lie in memory, are `halves`.
    #[inline(always)]
    pub const fn from_halves(halves: [u64; 2]) -> Self {
        Self {
            // SAFETY: both are 16 bytes without invalid values.
            octets: unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(halves) },
        }
    }
}

/// The third word of a v4-mapped address.
const V4_MAPPED: u32 = 0xffff_u32.to_be();

/// Two words, in the order in which they lie in memory.
#[inline(always)]
const fn joined(first: u32, second: u32) -> u64 {
    if cfg!(target_endian = "little") {
        first as u64 | (second as u64) << 32
    } else {
        (first as u64) << 32 | second as u64
    }
}

/// The two words of a half, in the order in which they lie in memory.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "that is the point")]
const fn parted(half: u64) -> [u32; 2] {
    if cfg!(target_endian = "little") {
        [half as u32, (half >> 32) as u32]
    } else {
        [(half >> 32) as u32, half as u32]
    }
}

/// By halves: the programs have no `memcmp`.
impl PartialEq for Address {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.halves(), other.halves());
        (a[0] ^ b[0]) | (a[1] ^ b[1]) == 0
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
            port: port as u64,
        }
    }

    /// The port as a number of 16 bits.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the field is merely wide")]
    pub const fn port(&self) -> u16 {
        self.port as u16
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
        Self::new(endpoint.address.into(), endpoint.port())
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
        assert_eq!(
            address.octets,
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3]
        );
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
            let endpoint = Endpoint::from(socket);
            assert_eq!(SocketAddr::from(endpoint), socket);
            assert_eq!(endpoint.port(), socket.port());
            let words = endpoint.address.words();
            assert_eq!(Address::from_words(words), endpoint.address);
        }
    }
}
