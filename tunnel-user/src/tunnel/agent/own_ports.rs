//! Which ports of its own node an agent may dial.
//!
//! A server asks for what it tunnels, but it is not asked what may be tunnelled: one that was taken
//! over would say everything. The operator's flag says, and in a cluster what the API server lists.

use std::{fmt, net::IpAddr, sync::Arc};

use tokio::sync::watch;

use super::PortRange;
use crate::model::{ListedPorts, TunnelPort};

/// The ports of the node's own addresses and of its loopback that may be dialled.
#[derive(Clone, Debug)]
pub struct OwnPorts {
    /// On either.
    always: Vec<PortRange>,
    listed: Option<Listed>,
}

/// The ports that a cluster lists.
#[derive(Clone, Debug)]
pub struct Listed {
    /// They change while the agent runs.
    pub ports: watch::Receiver<Arc<ListedPorts>>,
    /// Where they are listed, for people.
    pub place: Arc<str>,
}

/// What to do about a port that may not be dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRemedy {
    port: u16,
    place: Option<Arc<str>>,
}

impl OwnPorts {
    /// The kubelet's two, and these.
    pub fn new(besides: &[PortRange], listed: Option<Listed>) -> Self {
        let kubelet = [TunnelPort::KUBELET, TunnelPort::KUBELET_READ_ONLY];
        let kubelet = kubelet.into_iter().map(PortRange::from);
        Self {
            always: kubelet.chain(besides.iter().cloned()).collect(),
            listed,
        }
    }

    /// Every port there is.
    pub fn all() -> Self {
        let all = "1-65535".parse().expect("the constant is a range of ports");
        Self {
            always: vec![all],
            listed: None,
        }
    }

    /// Whether the port of this address, which is the node's own or a loopback, may be dialled.
    pub(super) fn check(&self, ip: IpAddr, port: u16) -> Result<(), PortRemedy> {
        let always = self.always.iter().any(|range| range.contains(port));
        if always || self.is_listed(ip, port) {
            return Ok(());
        }
        Err(PortRemedy {
            port,
            place: self.listed.as_ref().map(|listed| Arc::clone(&listed.place)),
        })
    }

    fn is_listed(&self, ip: IpAddr, port: u16) -> bool {
        let (Some(listed), Some(port)) = (&self.listed, TunnelPort::new(port)) else {
            return false;
        };
        let ports = listed.ports.borrow();
        let place = if ip.is_loopback() {
            &ports.loopback
        } else {
            &ports.own
        };
        place.contains(&port)
    }
}

impl fmt::Display for PortRemedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match &self.place {
            Some(place) => write!(f, "list port {port} in {place}, or ")?,
            None => write!(f, "if port {port} is to be reached, ")?,
        }
        write!(f, "start the agent with --allow-ports {port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "10.78.0.11";

    fn allows(ports: &OwnPorts, ip: &str, port: u16) -> bool {
        ports.check(ip.parse().unwrap(), port).is_ok()
    }

    #[test]
    fn without_a_word_from_anybody_only_the_kubelet_is_dialled() {
        let ports = OwnPorts::new(&[], None);
        for ip in [NODE, "127.0.0.1", "::1"] {
            assert!(allows(&ports, ip, 10250) && allows(&ports, ip, 10255));
            for port in [22, 2375, 9100, 10249, 10261] {
                assert!(!allows(&ports, ip, port), "{ip}:{port}");
            }
        }
    }

    #[test]
    fn the_operator_adds_ports_and_a_refusal_says_how() {
        let besides = ["9100", "9400-9410"].map(|text| text.parse().unwrap());
        let ports = OwnPorts::new(&besides, None);
        assert!(allows(&ports, NODE, 9100) && allows(&ports, "127.0.0.1", 9405));
        let refused = ports.check(NODE.parse().unwrap(), 9101).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "if port 9101 is to be reached, start the agent with --allow-ports 9101"
        );
    }

    #[test]
    fn what_the_cluster_lists_is_open_where_it_says_and_for_as_long_as_it_says() {
        let listed = |own: &[u16], loopback: &[u16]| {
            let ports = |ports: &[u16]| ports.iter().filter_map(|p| TunnelPort::new(*p)).collect();
            Arc::new(ListedPorts {
                own: ports(own),
                loopback: ports(loopback),
            })
        };
        let (listed_tx, ports) = watch::channel(listed(&[9100], &[10249]));
        let place = "the ConfigMap kube-system/ports".into();
        let own = OwnPorts::new(&[], Some(Listed { ports, place }));
        assert!(allows(&own, NODE, 9100) && !allows(&own, "127.0.0.1", 9100));
        assert!(allows(&own, "127.0.0.1", 10249) && allows(&own, "::1", 10249));
        assert!(!allows(&own, NODE, 10249));

        listed_tx.send_replace(listed(&[], &[]));
        let refused = own.check(NODE.parse().unwrap(), 9100).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "list port 9100 in the ConfigMap kube-system/ports, or start the agent with \
             --allow-ports 9100"
        );
        assert!(allows(&own, NODE, 10250));
    }
}
