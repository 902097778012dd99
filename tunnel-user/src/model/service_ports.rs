//! The ports of the servers' Service inside the cluster, and where behind it they lead.
//!
//! Clients that dial a node by name reach that Service, on the port that they would dial at the node.
//! HTTP says in its head which node and port is meant, so one listener serves every port. TLS says the
//! node in its first message but never the port: each HTTPS port but the kubelet's has a listening port
//! of its own.

use std::collections::BTreeMap;

use super::{TunnelPort, https_listening_port};

/// Where the kubelet's HTTPS is received: Yurt-Tunnel's secure port.
pub const HTTPS_PORT: u16 = 10263;
/// Where all HTTP is received: Yurt-Tunnel's insecure port.
pub const HTTP_PORT: u16 = 10264;

/// What is spoken on a port, as the operator says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Plain HTTP/1.1.
    Http,
    /// TLS, whatever is in it.
    Https,
}

/// Tunnelled ports, with what is spoken there.
pub type SchemedPorts = BTreeMap<TunnelPort, Scheme>;

/// The port at which servers listen for what comes to this port of the Service.
pub fn listening_port(port: TunnelPort, scheme: Scheme) -> u16 {
    match scheme {
        Scheme::Http => HTTP_PORT,
        Scheme::Https if port == TunnelPort::KUBELET => HTTPS_PORT,
        Scheme::Https => https_listening_port(port).number(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_ports_have_listening_ports_of_their_own_and_http_ports_share_one() {
        for (port, scheme, listening) in [
            (10250, Scheme::Https, 10263),
            (10255, Scheme::Http, 10264),
            (9100, Scheme::Http, 10264),
            (9443, Scheme::Https, 29443),
        ] {
            let port = TunnelPort::new(port).unwrap();
            assert_eq!(listening_port(port, scheme), listening, "{port}");
        }
    }
}
