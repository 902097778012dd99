//! Where a request goes: decided by what it says of host and port, and by nothing else. A path that looks like the
//! kubelet's goes where its host says; where TLS ends and no node is named, the pod in such a path says which.
//!
//! | says | means |
//! |---|---|
//! | `Host`, or the authority of an absolute target | a node's name or address, and the port |
//! | `X-Tunnel-Proxy-Dest: ADDRESS:PORT` | that destination, whatever `Host` says |
//! | `X-Tunnel-Proxy-Host: NODE` | that node's agent, whoever else has the address |

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use super::{
    asked::{Asked, Entry},
    refusal::Refusal,
};
use crate::model::{Node, NodeName, OriginalDst, PortSet, Snapshot, TunnelPort, printable};

/// What a URL without a port means.
const HTTP: u16 = 80;

/// Where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) node: NodeName,
    /// An address of that node, and the port.
    pub(super) dst: OriginalDst,
    /// Whether that port leads to the node's loopback.
    pub(super) on_loopback: bool,
    /// Whether it is the kubelet's own.
    pub(super) is_kubelet: bool,
    /// What the target is to take for its `Host`.
    pub(super) host: String,
}

/// A host and a port, as a header has them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Authority {
    host: Host,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    Name(NodeName),
}

impl Route {
    /// Finds it.
    pub(super) fn find(said: Asked<'_>, snapshot: &Snapshot) -> Result<Self, Refusal> {
        let parse = |header, text: Option<&str>| {
            let read = |text: &str| {
                text.parse().map_err(|()| Refusal::Malformed {
                    header,
                    value: printable(text),
                })
            };
            text.map(read).transpose()
        };
        let chosen: Option<Authority> = parse("X-Tunnel-Proxy-Dest", said.proxy_dest)?;
        let agent: Option<Authority> = parse("X-Tunnel-Proxy-Host", said.proxy_host)?;
        let wanted = match chosen.clone() {
            Some(chosen) => chosen,
            None => parse("Host", said.authority)?.ok_or(Refusal::NoHost)?,
        };
        if wanted.port.is_none() && chosen.is_some() {
            return Err(Refusal::NoPort);
        }
        let by = agent.as_ref().unwrap_or(&wanted);
        let node = by.host.node(snapshot)?;
        let port = said.entry.port(wanted.port, node);
        let address = address(node, &wanted.host, chosen.is_some(), snapshot)?;
        let dst = OriginalDst(SocketAddr::new(address, port));
        let is_in =
            |ports: &PortSet| TunnelPort::new(port).is_some_and(|port| ports.contains(&port));
        let is_kubelet = port == node.kubelet_port().number();
        let is_open = match said.entry {
            Entry::Http => is_in(snapshot.http_ports()),
            Entry::Https(_) => is_kubelet || is_in(snapshot.https_ports()),
        };
        if !is_open {
            let (node, entry) = (node.name.clone(), said.entry);
            return Err(Refusal::PortNotAllowed { node, port, entry });
        }
        let on_loopback = is_in(snapshot.loopback_ports());
        let host = match said.authority {
            _ if on_loopback => snapshot.target(dst).to_string(),
            Some(authority) if chosen.is_none() => authority.to_owned(),
            _ => dst.to_string(),
        };
        Ok(Self {
            node: node.name.clone(),
            dst,
            on_loopback,
            is_kubelet,
            host,
        })
    }

    /// To this node's kubelet, whatever the request says.
    pub(super) fn to_kubelet(
        node: &NodeName,
        authority: Option<&str>,
        snapshot: &Snapshot,
    ) -> Result<Self, Refusal> {
        let unknown = || Refusal::UnknownNode(node.to_string());
        let node = snapshot.node(node).ok_or_else(unknown)?;
        let address = node.addresses.first().ok_or_else(unknown)?.to_canonical();
        let port = node.kubelet_port();
        let dst = OriginalDst(SocketAddr::new(address, port.number()));
        Ok(Self {
            node: node.name.clone(),
            dst,
            on_loopback: snapshot.loopback_ports().contains(&port),
            is_kubelet: true,
            host: authority.map_or_else(|| dst.to_string(), ToOwned::to_owned),
        })
    }

    /// The same, unless it leads to a node's loopback and must not.
    pub(super) fn allow_loopback(self, may_use: bool) -> Result<Self, Refusal> {
        if self.on_loopback && !may_use {
            let port = self.dst.0.port();
            let node = self.node;
            return Err(Refusal::LoopbackPort { node, port });
        }
        Ok(self)
    }
}

impl Entry {
    /// The port of the node that is meant.
    fn port(self, said: Option<u16>, node: &Node) -> u16 {
        match (self, said) {
            (Self::Http, None) => HTTP,
            (Self::Https(_), None) => node.kubelet_port().number(),
            (Self::Https(own), Some(port)) if port == own => node.kubelet_port().number(),
            (_, Some(port)) => port,
        }
    }
}

/// Which of the node's addresses is meant.
fn address(
    node: &Node,
    wanted: &Host,
    is_explicit: bool,
    snapshot: &Snapshot,
) -> Result<IpAddr, Refusal> {
    let first = node.addresses.first().map(IpAddr::to_canonical);
    let first = first.ok_or_else(|| Refusal::UnknownNode(node.name.to_string()));
    let contradiction = || Refusal::Contradiction {
        node: node.name.clone(),
        host: wanted.to_string(),
    };
    match wanted {
        Host::Ip(ip) if node.addresses.iter().any(|own| own.to_canonical() == *ip) => Ok(*ip),
        // The server's own address, or that of the Service: `X-Tunnel-Proxy-Host` says which node.
        Host::Ip(ip) if !is_explicit && snapshot.owner(*ip).is_none() => first,
        // As the node would say it itself.
        Host::Ip(ip) if ip.is_loopback() => first,
        Host::Name(name) if *name == node.name || snapshot.node(name).is_none() => first,
        Host::Ip(_) | Host::Name(_) => Err(contradiction()),
    }
}

impl Host {
    fn node<'a>(&self, snapshot: &'a Snapshot) -> Result<&'a Node, Refusal> {
        match self {
            Self::Name(name) => snapshot.node(name),
            Self::Ip(ip) => {
                if let Some(conflict) = snapshot.conflict(*ip) {
                    return Err(Refusal::Contested(conflict.clone()));
                }
                snapshot.owner(*ip)
            }
        }
        .ok_or_else(|| Refusal::UnknownNode(self.to_string()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl FromStr for Authority {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (host, port) = if let Some(v6) = text.strip_prefix('[') {
            let (host, rest) = v6.split_once(']').ok_or(())?;
            let host: IpAddr = host.parse().map(IpAddr::V6).map_err(|_| ())?;
            let port = rest.strip_prefix(':');
            if port.is_none() && !rest.is_empty() {
                return Err(());
            }
            (Host::Ip(host.to_canonical()), port)
        } else {
            let parts = text.split_once(':');
            let (host, port) = parts.map_or((text, None), |(host, port)| (host, Some(port)));
            let host = match host.parse() {
                Ok(ip) => Host::Ip(ip),
                Err(_) => Host::Name(node_name(host)?),
            };
            (host, port)
        };
        let port = port.map(port_number).transpose()?;
        Ok(Self { host, port })
    }
}

/// Names are written as their readers like: in capitals, with the root's dot.
fn node_name(host: &str) -> Result<NodeName, ()> {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.to_ascii_lowercase().parse().map_err(|_| ())
}

/// Digits only: `+80` is a number to Rust.
fn port_number(text: &str) -> Result<u16, ()> {
    let are_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = are_digits.then(|| text.parse().ok()).flatten().ok_or(())?;
    (number != 0).then_some(number).ok_or(())
}

#[cfg(test)]
mod tests;
