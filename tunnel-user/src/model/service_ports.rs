//! The ports of the servers' Service inside the cluster, and where behind it they lead.
//!
//! Clients that dial a node by name reach that Service, on the port that they would dial at the node.
//! HTTP says in its head which node and port is meant, so one listener serves every port. TLS says the
//! node in its first message but never the port: each HTTPS port but the kubelet's has a listening port
//! of its own.

use std::collections::BTreeMap;

use super::{PortSet, TunnelPort, https_listening_port};

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

/// Where servers listen for clients that dial nodes by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListeningPorts {
    /// For the kubelet's HTTPS. Without it servers listen for no other HTTPS either.
    pub https: Option<u16>,
    /// For all HTTP.
    pub http: Option<u16>,
    /// Every port at which a server listens for something else than a listed port's HTTPS.
    pub own: PortSet,
}

impl ListeningPorts {
    /// The port at which servers listen for what comes to this port of the Service, if they do.
    pub fn behind(&self, port: TunnelPort, scheme: Scheme) -> Option<u16> {
        match scheme {
            Scheme::Http => self.http,
            Scheme::Https if port == TunnelPort::KUBELET => self.https,
            Scheme::Https => self.https.map(|_| https_listening_port(port).number()),
        }
    }
}

impl Default for ListeningPorts {
    fn default() -> Self {
        Self {
            https: Some(HTTPS_PORT),
            http: Some(HTTP_PORT),
            own: PortSet::new(),
        }
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
            let found = ListeningPorts::default().behind(port, scheme);
            assert_eq!(found, Some(listening), "{port}");
        }
    }

    #[test]
    fn a_server_without_the_kubelets_https_port_listens_for_no_https() {
        let none = ListeningPorts {
            https: None,
            http: Some(8264),
            own: PortSet::new(),
        };
        for port in [10250, 9443].map(|port| TunnelPort::new(port).unwrap()) {
            assert_eq!(none.behind(port, Scheme::Https), None);
            assert_eq!(none.behind(port, Scheme::Http), Some(8264));
        }
    }
}
