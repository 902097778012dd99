//! At which ports a server takes clients that speak TLS. What they say is encrypted, so the port at which they arrive
//! has to tell which port of the node they mean.
//!
//! | the client means | it arrives at |
//! |---|---|
//! | the kubelet | `--https-port` |
//! | another port of a node, listed as one of HTTPS | 20000 and the last four digits of that port: 29443 for 9443 |
//!
//! Whoever routes clients here (a Service's `targetPort`) has to know the port without asking a server, and each server
//! has to choose the same. The port itself would not do: what listens on it at an edge node usually does so on this
//! machine as well. 20000 to 29999 are below node ports and local ports.

use std::collections::BTreeMap;

use super::{PortSet, TunnelPort};

/// The first port of those for clients of listed ports.
const FIRST: u16 = 20_000;
/// How many of a port's values are kept.
const KEPT: u16 = 10_000;
/// More listening sockets than anybody needs, and fewer than a successor can be handed at a time.
const MOST: usize = 128;

/// Which port of a node the clients of a listening socket mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HttpsTarget {
    /// Its kubelet's, wherever that is.
    Kubelet,
    /// This one.
    Port(TunnelPort),
}

/// The ports at which a server takes clients of listed ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpsPorts {
    /// By the port that the client means.
    pub listening: BTreeMap<TunnelPort, TunnelPort>,
    /// Which listed ports have none, and why.
    pub left_out: BTreeMap<TunnelPort, NoHttpsPort>,
}

/// Why clients that speak TLS cannot be taken for a listed port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum NoHttpsPort {
    /// Its last four digits are those of another.
    #[error(
        "port {listening} is taken by port {other}, which ends alike: list one of the two, or let its clients dial the \
         node's address"
    )]
    Alike {
        /// The port at which clients would arrive.
        listening: TunnelPort,
        /// Whose that is.
        other: TunnelPort,
    },
    /// The server itself listens there.
    #[error(
        "port {0} is one of the server's own: give the server others (--agent-port, --redirect-port, --meta-port, \
         --https-port, --http-port)"
    )]
    Own(TunnelPort),
    /// There are too many.
    #[error("no more than {MOST} ports can be listed in https-proxy-ports: list fewer")]
    TooMany,
}

/// The port at which servers take clients that mean this port of a node, which is not the kubelet's.
pub fn https_listening_port(port: TunnelPort) -> TunnelPort {
    TunnelPort::new(FIRST + port.number() % KEPT).expect("it is 20000 at least")
}

/// Whether servers take clients of listed ports there.
pub fn is_https_listening_port(port: u16) -> bool {
    (FIRST..FIRST + KEPT).contains(&port)
}

impl HttpsPorts {
    /// The ports for clients of these, of which the kubelet's is none; `own` are the server's.
    pub fn of(listed: &PortSet, own: &PortSet) -> Self {
        let mut ports = Self::default();
        let mut taken = BTreeMap::new();
        for port in listed {
            if *port == TunnelPort::KUBELET {
                continue;
            }
            let listening = https_listening_port(*port);
            let refused = if own.contains(&listening) {
                Some(NoHttpsPort::Own(listening))
            } else if let Some(other) = taken.get(&listening).copied() {
                Some(NoHttpsPort::Alike { listening, other })
            } else {
                (taken.len() == MOST).then_some(NoHttpsPort::TooMany)
            };
            if let Some(why) = refused {
                ports.left_out.insert(*port, why);
            } else {
                taken.insert(listening, *port);
                ports.listening.insert(*port, listening);
            }
        }
        ports
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: u16) -> TunnelPort {
        TunnelPort::new(number).unwrap()
    }

    fn ports(numbers: &[u16]) -> PortSet {
        numbers.iter().copied().map(port).collect()
    }

    #[test]
    fn the_last_four_digits_of_a_port_are_kept() {
        for (asked, listening) in [
            (1, 20001),
            (443, 20443),
            (9443, 29443),
            (10257, 20257),
            (65535, 25535),
        ] {
            assert_eq!(https_listening_port(port(asked)), port(listening));
            assert!(is_https_listening_port(listening));
        }
        assert!(!is_https_listening_port(19_999) && !is_https_listening_port(30_000));
    }

    #[test]
    fn of_ports_that_end_alike_the_lower_is_served_and_the_servers_own_stay_its_own() {
        let found = HttpsPorts::of(
            &ports(&[9443, 10250, 19443, 10270]),
            &ports(&[20270, 10250]),
        );
        assert_eq!(found.listening, [(port(9443), port(29443))].into());
        let alike = NoHttpsPort::Alike {
            listening: port(29443),
            other: port(9443),
        };
        let own = NoHttpsPort::Own(port(20270));
        assert_eq!(
            found.left_out,
            [(port(19443), alike), (port(10270), own)].into()
        );
    }

    #[test]
    fn there_are_never_more_sockets_than_a_successor_can_be_handed() {
        let many: PortSet = (1..=200).map(port).collect();
        let found = HttpsPorts::of(&many, &PortSet::new());
        assert_eq!(
            (found.listening.len(), found.left_out.len()),
            (MOST, 200 - MOST)
        );
        let too_many = |why: &NoHttpsPort| *why == NoHttpsPort::TooMany;
        assert!(found.left_out.values().all(too_many));
    }
}
