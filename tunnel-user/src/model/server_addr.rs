//! Where a server takes its agents.

use std::{fmt, net::IpAddr, str::FromStr};

use rustls_pki_types::{DnsName, ServerName};

/// The port on which servers take agents, as Yurt-Tunnel's do.
pub const AGENT_PORT: u16 = 10262;

/// Host and port of a server; the host is a name or an address, resolved at each dial.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerAddr {
    host: String,
    port: u16,
    name: ServerName<'static>,
}

/// Why a string is not a [`ServerAddr`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a server: expected HOST, HOST:PORT or [IPv6]:PORT")]
pub struct InvalidServerAddr(String);

impl ServerAddr {
    /// Host and port, as a dial takes them.
    pub fn host_and_port(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// The name or address that the server's certificate must carry, where it carries real ones.
    pub fn server_name(&self) -> &ServerName<'static> {
        &self.name
    }
}

impl From<(IpAddr, u16)> for ServerAddr {
    fn from((address, port): (IpAddr, u16)) -> Self {
        Self {
            host: address.to_string(),
            port,
            name: ServerName::IpAddress(address.into()),
        }
    }
}

impl FromStr for ServerAddr {
    type Err = InvalidServerAddr;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidServerAddr(text.to_owned());
        let (host, port) = split(text).ok_or_else(invalid)?;
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0),
            None => Some(AGENT_PORT),
        };
        let name = match host.parse::<IpAddr>() {
            Ok(ip) => ServerName::IpAddress(ip.into()),
            Err(_) => DnsName::try_from(host.to_owned())
                .map(ServerName::DnsName)
                .map_err(|_| invalid())?,
        };
        Ok(Self {
            host: host.to_owned(),
            port: port.ok_or_else(invalid)?,
            name,
        })
    }
}

impl fmt::Display for ServerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some((text, None));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return match port {
            "" => Some((host, None)),
            port => Some((host, Some(port.strip_prefix(':')?))),
        };
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    is_host_name(host).then_some((host, port))
}

/// Whether a name can be looked up: also one with underscores, which resolvers take.
pub(super) fn is_host_name(host: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_');
    !host.is_empty() && host.len() <= 253 && host.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_may_be_left_out() {
        for (text, shown) in [
            ("cloud.example", "cloud.example:10262"),
            ("10.0.0.1:443", "10.0.0.1:443"),
            ("fd00::1", "[fd00::1]:10262"),
            ("[fd00::1]", "[fd00::1]:10262"),
            ("[fd00::1]:443", "[fd00::1]:443"),
        ] {
            assert_eq!(text.parse::<ServerAddr>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_form() {
        for text in [
            "", ":1", "a:", "a:0", "a:x", "a:70000", "[fd00::1", "[a]:1", "a b", "a:1:2",
        ] {
            let error = text.parse::<ServerAddr>().unwrap_err().to_string();
            assert!(error.contains("HOST:PORT"), "{error}");
        }
    }
}
