//! Services with endpoints on nodes, as the programs translate them at `connect()`, before kube-proxy would.
//!
//! ```text
//!  service_ports  a bit for each port that some Service has: what else is dialled costs no lookup
//!  services       ClusterIP and port -> which backends, how many
//!  backends       those, numbered from 0 on -> address and port
//! ```
//! An element of a hash map that is deleted may be used for another entry while a program still reads it (Linux 6.1
//! and newer). So each entry carries a seal over its key and its value: what was read in halves, or is another entry
//! by now, does not fit it, and leads nowhere.
#![expect(
    clippy::inline_always,
    reason = "a call would pass pointers that the verifier loses track of"
)]

use crate::Endpoint;

/// How many ports of Services the redirect can hold.
pub const MAX_SERVICES: usize = 1_024;
/// How many backends all of them may have together.
pub const MAX_BACKENDS: usize = 65_536;
/// Words of 64 ports.
pub const SERVICE_PORT_WORDS: usize = 1_024;

/// What a Service's port at its `ClusterIP` leads to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// Whose the backends are. A server gives none twice.
    pub id: u32,
    /// Backends have the numbers from 0 to below this.
    pub backends: u32,
    /// Of [`service_flags`].
    pub flags: u64,
    seal: u64,
}

/// Bits of [`ServiceEntry::flags`].
pub mod service_flags {
    /// Clients of a network namespace keep to one backend (`sessionAffinity: ClientIP`).
    pub const AFFINITY: u64 = 1;
    /// While the gate is closed connects are refused: some node among the backends wants that.
    pub const REFUSE: u64 = 2;
}

/// One endpoint of a Service.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its address and port.
    pub endpoint: Endpoint,
    seal: u64,
}

/// The key of a backend: whose it is, and its number.
#[inline(always)]
pub const fn backend_key(service: u32, number: u32) -> u64 {
    (service as u64) << 32 | number as u64
}

impl ServiceEntry {
    /// The entry of the Service that clients dial so.
    pub const fn new(dialled: &Endpoint, id: u32, backends: u32, flags: u64) -> Self {
        let mut entry = Self {
            id,
            backends,
            flags,
            seal: 0,
        };
        entry.seal = entry.seal_for(dialled);
        entry
    }

    /// Whether this is, as a whole, the entry of the Service that clients dial so.
    #[inline(always)]
    pub const fn is_of(&self, dialled: &Endpoint) -> bool {
        self.seal == self.seal_for(dialled)
    }

    #[inline(always)]
    const fn seal_for(&self, dialled: &Endpoint) -> u64 {
        let seal = mix_endpoint(backend_key(self.id, self.backends), dialled);
        mix(seal, self.flags)
    }
}

impl Backend {
    /// The entry under this [`backend_key`].
    pub const fn new(key: u64, endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            seal: mix_endpoint(key, &endpoint),
        }
    }

    /// Whether this is, as a whole, the entry under this key.
    #[inline(always)]
    pub const fn is_of(&self, key: u64) -> bool {
        self.seal == mix_endpoint(key, &self.endpoint)
    }
}

/// The word of [`SERVICE_PORT_WORDS`] in which this port has its bit.
#[inline(always)]
pub const fn service_port_word(port: u16) -> u32 {
    (port >> 6) as u32
}

/// The bit of this port in its word.
#[inline(always)]
pub const fn service_port_bit(port: u16) -> u64 {
    1 << (port & 63)
}

#[inline(always)]
const fn mix_endpoint(state: u64, endpoint: &Endpoint) -> u64 {
    let [first, second] = endpoint.address.halves();
    mix(mix(mix(state, first), second), endpoint.port)
}

/// Spreads a word over the state: any other word leads to another state.
#[inline(always)]
const fn mix(state: u64, word: u64) -> u64 {
    let mixed = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 32
}

/// A number that clients of a network namespace have in common, for a Service that keeps them together.
#[inline(always)]
pub const fn affinity_of(netns: u64, service: u32) -> u32 {
    (mix(netns, service as u64) >> 32) as u32
}

/// The number of the backend that a number, each as likely as any other, leads to.
#[inline(always)]
pub const fn chosen(number: u32, backends: u32) -> u32 {
    ((number as u64 * backends as u64) >> 32) as u32
}

const _: () = assert!(size_of::<ServiceEntry>() == 4 + 4 + 8 + 8);
const _: () = assert!(size_of::<Backend>() == size_of::<Endpoint>() + 8);
const _: () = assert!(SERVICE_PORT_WORDS * 64 == 1 << 16);

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, without padding (asserted above), any bytes are valid.
unsafe impl aya::Pod for ServiceEntry {}
#[cfg(feature = "user")]
// SAFETY: `repr(C)`, without padding (asserted above), any bytes are valid.
unsafe impl aya::Pod for Backend {}

#[cfg(test)]
mod tests {
    use core::net::SocketAddr;

    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse::<SocketAddr>().unwrap().into()
    }

    #[test]
    fn what_is_another_entry_or_half_of_one_does_not_fit_its_seal() {
        let (one, other) = (endpoint("10.96.0.5:443"), endpoint("10.96.0.6:443"));
        let entry = ServiceEntry::new(&one, 7, 3, service_flags::AFFINITY);
        assert!(entry.is_of(&one));
        assert!(!entry.is_of(&other) && !entry.is_of(&endpoint("10.96.0.5:444")));
        for torn in [
            ServiceEntry { id: 8, ..entry },
            ServiceEntry {
                backends: 4,
                ..entry
            },
            ServiceEntry { flags: 0, ..entry },
        ] {
            assert!(!torn.is_of(&one), "{torn:?}");
        }
        let key = backend_key(7, 2);
        let backend = Backend::new(key, endpoint("[fd00:78::11]:10250"));
        assert!(backend.is_of(key));
        assert!(!backend.is_of(backend_key(7, 1)) && !backend.is_of(backend_key(2, 7)));
        for torn in [
            "[fd00:78::12]:10250",
            "[fd01:78::11]:10250",
            "[fd00:78::11]:1",
        ] {
            let endpoint = endpoint(torn);
            assert!(
                !Backend {
                    endpoint,
                    ..backend
                }
                .is_of(key),
                "{torn}"
            );
        }
    }

    #[test]
    fn every_backend_is_chosen_and_none_beyond_the_last() {
        for backends in [1, 2, 3, 65_536] {
            assert_eq!(chosen(0, backends), 0);
            assert_eq!(chosen(u32::MAX, backends), backends - 1);
        }
        let mut hits = [0_u32; 3];
        for netns in 0..3_000 {
            hits[chosen(affinity_of(netns, 9), 3) as usize] += 1;
        }
        assert!(
            hits.iter().all(|hits| (800..1200).contains(hits)),
            "{hits:?}"
        );
    }

    #[test]
    fn each_port_has_a_bit_of_its_own() {
        for (port, word, bit) in [
            (0, 0, 0),
            (63, 0, 63),
            (64, 1, 0),
            (443, 6, 59),
            (65535, 1023, 63),
        ] {
            assert_eq!(service_port_word(port), word, "{port}");
            assert_eq!(service_port_bit(port), 1 << bit, "{port}");
        }
    }
}
