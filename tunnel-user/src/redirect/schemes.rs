//! Which scheme serves whom, and from where nothing arrives.

use std::{io, sync::Arc};

use serde::Serialize;
use tunnel_ebpf::{Namespace, maps, scheme};

use super::{LocalRanges, gate::monotonic_nanoseconds, kernel_map::KernelMap, pins::Pins};

/// How the original destinations of a client reach the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// The local address that a connect is sent to stands for it: nobody can forge that.
    Range(String),
    /// They are noted under connections' 4-tuples. Pods with the same address in several network
    /// namespaces can make each other's connections fail.
    Tuple,
}

/// What serves whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Schemes {
    /// IPv4 connects of the server's own network namespace.
    pub host: Scheme,
    /// IPv4 connects of pods.
    pub pods: Scheme,
    /// Native IPv6 connects.
    pub v6: Scheme,
    /// How the other network namespaces fare.
    pub namespaces: Namespaces,
}

/// Network namespaces of clients, by how their connects fare. Those that are gone are forgotten only
/// when there are thousands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Namespaces {
    /// Served by a range.
    pub range: usize,
    /// Served by notes, for the ranges are not routed there or their target has no address in one.
    pub tuple: usize,
    /// Not served at the moment: their SYNs do not arrive.
    pub unreached: usize,
}

/// Reads how connects of other network namespaces fare.
#[derive(Clone, Debug)]
pub struct NamespaceReader {
    map: Arc<KernelMap<u64, Namespace>>,
}

impl Schemes {
    pub(super) fn new(ranges: &LocalRanges, usable: bool, namespaces: Namespaces) -> Self {
        let scheme = |range: Option<String>| match range {
            Some(range) if usable => Scheme::Range(range),
            _ => Scheme::Tuple,
        };
        Self {
            host: scheme(ranges.host.map(|net| net.to_string())),
            pods: scheme(ranges.pods.map(|net| net.to_string())),
            v6: scheme(ranges.v6.map(|net| net.to_string())),
            namespaces,
        }
    }
}

impl Schemes {
    /// The kind of scheme for each kind of clients.
    pub fn kinds(&self) -> [(&'static str, &'static str); 3] {
        [
            ("host", self.host.kind()),
            ("pods", self.pods.kind()),
            ("ipv6", self.v6.kind()),
        ]
    }
}

impl Namespaces {
    /// Each number by its name.
    pub fn named(&self) -> [(&'static str, u64); 3] {
        [
            ("range", self.range as u64),
            ("tuple", self.tuple as u64),
            ("unreached", self.unreached as u64),
        ]
    }
}

impl Scheme {
    /// The name of its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Range(_) => "range",
            Self::Tuple => "tuple",
        }
    }
}

impl NamespaceReader {
    pub(super) fn open(pins: &Pins) -> io::Result<Self> {
        let map = KernelMap::open(&pins.map(maps::NAMESPACES))?;
        Ok(Self { map: Arc::new(map) })
    }

    /// Counts them.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn read(&self) -> io::Result<Namespaces> {
        let namespaces = self.map.entries()?;
        let namespaces = namespaces.iter().map(|(_, namespace)| namespace);
        Ok(count(namespaces, monotonic_nanoseconds()))
    }
}

fn count<'a>(namespaces: impl Iterator<Item = &'a Namespace>, now: u64) -> Namespaces {
    namespaces.fold(Namespaces::default(), |mut counted, namespace| {
        let place = if namespace.closed_until > now {
            &mut counted.unreached
        } else if namespace.scheme == scheme::RANGE {
            &mut counted.range
        } else {
            &mut counted.tuple
        };
        *place += 1;
        counted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_unreached_only_while_its_gate_is_closed() {
        let namespace = |scheme, closed_until| Namespace {
            scheme,
            lost_since: 0,
            scheme_since: 1,
            closed_until,
            doubted_since: 0,
            attempted_at: 0,
        };
        let all = [
            namespace(scheme::RANGE, 0),
            namespace(scheme::TUPLE, 0),
            namespace(scheme::TUPLE, 99),
            namespace(scheme::TUPLE, 101),
        ];
        let counted = count(all.iter(), 100);
        let expected = Namespaces {
            range: 1,
            tuple: 2,
            unreached: 1,
        };
        assert_eq!(counted, expected);
    }
}
