//! The ports that the `ConfigMap` asks for, in Yurt-Tunnel's formats.
//!
//! | key | format |
//! |---|---|
//! | `dnat-ports-pair` | `9100=10264, 9200=10264`, or a plain list |
//! | `http-proxy-ports`, `https-proxy-ports`, `localhost-proxy-ports` | `9445, 9051` |
//!
//! Each of these ports is tunnelled in the same way, for the redirect carries bytes; what is behind
//! those of `localhost-proxy-ports` listens on the node's loopback. What is spoken on the others decides
//! where the Service of clients that dial by name leads: of several keys with one port the last counts.

use std::{collections::BTreeMap, fmt};

use crate::model::{HTTP_PORT, HTTPS_PORT, PortSet, Scheme, SchemedPorts, TunnelPort};

const PAIRS: &str = "dnat-ports-pair";
const HTTP: &str = "http-proxy-ports";
const HTTPS: &str = "https-proxy-ports";
const LOOPBACK: &str = "localhost-proxy-ports";
/// As Yurt-Tunnel reads them.
const KEYS: [&str; 4] = [PAIRS, HTTP, HTTPS, LOOPBACK];
/// Half of what the kernel's map holds: the nodes' own kubelet ports need room as well.
const MOST_PORTS: usize = 512;
/// How many bad values of a key are named, and how much of each.
const MOST_NAMED: usize = 8;
const LONGEST_NAMED: usize = 40;

/// What a `ConfigMap` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ports {
    /// Every port it asks for.
    pub(super) tunnelled: PortSet,
    /// Those of them whose services listen on the node's loopback.
    pub(super) loopback: PortSet,
    /// What is spoken on those that are listed for it, whatever else they are listed for.
    pub(super) schemes: SchemedPorts,
    pub(super) problems: Vec<PortsProblem>,
}

/// What is wrong with the `ConfigMap` of the ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum PortsProblem {
    /// A key's value contains something that is no port.
    #[error("{key}: {values} left out: expected {expected}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// What was left out.
        values: BadValues,
        /// The format.
        expected: &'static str,
    },
    /// A key's value names ports at which this server listens.
    #[error(
        "{key}: left out {}, which the server itself listens on: give the server other ports \
         (--redirect-port, --agent-port, --meta-port, --https-port), or remove them here",
        list(ports)
    )]
    Reserved {
        /// The key.
        key: &'static str,
        /// The ports.
        ports: PortSet,
    },
    /// A key that means nothing.
    #[error("key {0} means nothing here: expected {known}", known = KEYS.join(", "))]
    UnknownKeys(BadValues),
    /// More ports than the kernel's map has room for.
    #[error(
        "{wanted} ports are more than the {most} that can be tunnelled: the highest are left out"
    )]
    TooMany {
        /// How many it asks for.
        wanted: usize,
        /// How many are taken.
        most: usize,
    },
    /// It is gone, and nobody said that its ports should be.
    #[error(
        "it is gone: its ports {} stay tunnelled; to end that, create it anew, with empty values \
         or others", list(.0)
    )]
    Gone(PortSet),
    /// It cannot be followed, while Nodes can.
    #[error("it cannot be read: its ports stay as they were last known: {0}")]
    Unreadable(String),
}

/// The first few of some texts, each cut where it is long.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BadValues {
    named: Vec<String>,
    more: usize,
}

impl Ports {
    /// Reads the values; what is wrong in one of them does not touch the others.
    pub(super) fn read(data: &BTreeMap<String, String>, reserved: &PortSet) -> Self {
        let mut ports = Self::default();
        for key in KEYS {
            if let Some(value) = data.get(key) {
                ports.read_key(key, value, reserved);
            }
        }
        let unknown = data.keys().filter(|key| !KEYS.contains(&key.as_str()));
        let mut bad = BadValues::default();
        unknown.for_each(|key| bad.add(key));
        if !bad.is_empty() {
            ports.problems.push(PortsProblem::UnknownKeys(bad));
        }
        ports.limit();
        ports
    }

    /// Those on which TLS is spoken.
    pub(super) fn https(&self) -> PortSet {
        let schemes = self.schemes.iter();
        let https = schemes.filter(|(_, scheme)| **scheme == Scheme::Https);
        https.map(|(port, _)| *port).collect()
    }

    /// Those on which plain HTTP is spoken: also those on the loopback of which nothing else is said.
    pub(super) fn http(&self) -> PortSet {
        &self.tunnelled - &self.https()
    }

    fn read_key(&mut self, key: &'static str, value: &str, reserved: &PortSet) {
        let expected = match key {
            PAIRS => "PORT=10264, ... with ports from 1 to 65535",
            _ => "PORT, ... with ports from 1 to 65535",
        };
        let mut bad = BadValues::default();
        let mut own = PortSet::new();
        for entry in value.split(',').map(str::trim).filter(|e| !e.is_empty()) {
            match read(key, entry) {
                None => bad.add(entry),
                Some((port, _)) if reserved.contains(&port) => drop(own.insert(port)),
                Some((port, scheme)) => {
                    self.tunnelled.insert(port);
                    match scheme {
                        Some(scheme) => drop(self.schemes.insert(port, scheme)),
                        None => drop(self.loopback.insert(port)),
                    }
                }
            }
        }
        if !bad.is_empty() {
            self.problems.push(PortsProblem::Invalid {
                key,
                values: bad,
                expected,
            });
        }
        if !own.is_empty() {
            let ports = own;
            self.problems.push(PortsProblem::Reserved { key, ports });
        }
    }

    fn limit(&mut self) {
        let wanted = self.tunnelled.len();
        if wanted > MOST_PORTS {
            self.tunnelled = self.tunnelled.iter().copied().take(MOST_PORTS).collect();
            self.loopback = &self.loopback & &self.tunnelled;
            self.schemes.retain(|port, _| self.tunnelled.contains(port));
            let most = MOST_PORTS;
            self.problems.push(PortsProblem::TooMany { wanted, most });
        }
    }
}

/// The port of an entry, and what is spoken there, where its key says so.
fn read(key: &str, entry: &str) -> Option<(TunnelPort, Option<Scheme>)> {
    match key {
        PAIRS => pair(entry).map(|(port, scheme)| (port, Some(scheme))),
        HTTP => port(entry).map(|port| (port, Some(Scheme::Http))),
        HTTPS => port(entry).map(|port| (port, Some(Scheme::Https))),
        _ => port(entry).map(|port| (port, None)),
    }
}

fn port(entry: &str) -> Option<TunnelPort> {
    entry.parse().ok()
}

/// The left side of a pair. The right side must be a listener of Yurt-Tunnel's, as there: who
/// writes another port may mean something that nobody does.
fn pair(entry: &str) -> Option<(TunnelPort, Scheme)> {
    let Some((left, right)) = entry.split_once('=') else {
        return port(entry).map(|port| (port, Scheme::Http));
    };
    let scheme = match port(right.trim())?.number() {
        HTTP_PORT => Scheme::Http,
        HTTPS_PORT => Scheme::Https,
        _ => return None,
    };
    port(left.trim()).map(|port| (port, scheme))
}

fn list(ports: &PortSet) -> String {
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    ports.join(", ")
}

impl BadValues {
    fn add(&mut self, text: &str) {
        if self.named.len() == MOST_NAMED {
            self.more += 1;
            return;
        }
        let mut named: String = text.chars().take(LONGEST_NAMED).collect();
        if named.len() < text.len() {
            named.push('…');
        }
        self.named.push(named);
    }

    fn is_empty(&self) -> bool {
        self.named.is_empty()
    }
}

impl fmt::Display for BadValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, named) in self.named.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{named:?}")?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests;
