//! What the agent dials in the end.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use super::{printable, server_addr::is_host_name};

/// Host and port that the agent is asked to dial.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Where.
    pub host: TargetHost,
    /// The TCP port there.
    pub port: u16,
}

/// An address, or a name that the agent resolves on its own side.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetHost {
    /// A literal address.
    Ip(IpAddr),
    /// A DNS name, meaningful in the edge's network.
    Name(String),
}

/// Why a string is not a [`Target`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a target: expected host:port, with an IPv6 address in brackets")]
pub struct InvalidTarget(String);

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Self {
        Self {
            host: TargetHost::Ip(addr.ip()),
            port: addr.port(),
        }
    }
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(addr.into());
        }
        let invalid = || InvalidTarget(printable(text));
        let (name, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let port = port.parse().map_err(|_| invalid())?;
        if !is_host_name(name) {
            return Err(invalid());
        }
        Ok(Self {
            host: TargetHost::Name(name.to_owned()),
            port,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            TargetHost::Ip(ip) => SocketAddr::new(*ip, self.port).fmt(f),
            TargetHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_writes() {
        for text in [
            "127.0.0.1:10250",
            "[fd00::1]:10250",
            "localhost:10250",
            "a.b-c.example:1",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_what_it_would_have_to_guess() {
        for text in [
            "",
            "10250",
            "host",
            "host:",
            ":1",
            "fd00::1:x",
            "fd00::1",
            "a b:1",
            "h:65536",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text:?} was accepted");
        }
    }
}
