//! The servers that an agent knows, and how it stands with each.

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use rustls_pki_types::ServerName;
use tokio::sync::watch;

use crate::model::{Target, TargetHost};

/// The port that servers listen on for agents.
const DEFAULT_PORT: u16 = 10262;

/// Where a server listens for agents, and the name or address that TLS verifies there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerAddr(Target, ServerName<'static>);

/// Why a string is not a [`ServerAddr`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a server address: expected host or host:port, IPv6 in brackets")]
pub struct UnreadableServerAddr(String);

/// How it stands with one server address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// No session; the last failure, if there was one.
    Down(Option<String>),
    /// A session is established.
    Up {
        /// The server's id.
        server_id: String,
        /// Since when.
        since: SystemTime,
    },
    /// The address leads to a server that another address has a session with already.
    Duplicate {
        /// That server's id.
        server_id: String,
    },
}

/// One server address and how it stands with it.
#[derive(Clone, Debug)]
pub struct LinkReport {
    /// The address.
    pub server: ServerAddr,
    /// How it stands.
    pub state: LinkState,
}

/// Which address has a session with which server. Two addresses that lead to one server need one
/// session between them: the newest holds it, as the server sees it too.
#[derive(Clone, Default)]
pub struct Servers {
    links: Arc<Mutex<BTreeMap<String, LinkReport>>>,
    changes: Arc<watch::Sender<u64>>,
}

impl ServerAddr {
    /// The name or address to verify where the certificate names real hosts.
    pub fn server_name(&self) -> ServerName<'static> {
        self.1.clone()
    }

    /// `host:port`, ready to be resolved.
    pub fn host_and_port(&self) -> String {
        self.0.to_string()
    }
}

impl Servers {
    /// Every address, in order.
    pub fn reports(&self) -> Vec<LinkReport> {
        self.lock().values().cloned().collect()
    }

    /// Whether at least one session is up.
    pub fn any_up(&self) -> bool {
        self.lock()
            .values()
            .any(|link| matches!(link.state, LinkState::Up { .. }))
    }

    /// Ticks whenever a link's state changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn set(&self, server: &ServerAddr, state: LinkState) {
        let report = LinkReport {
            server: server.clone(),
            state,
        };
        self.lock().insert(server.to_string(), report);
        self.changes.send_modify(|change| *change += 1);
    }

    /// Notes the session, and takes the server from whichever other address has it.
    pub(super) fn up(&self, server: &ServerAddr, server_id: &str) {
        for other in self
            .lock()
            .values_mut()
            .filter(|other| other.server != *server)
        {
            if matches!(&other.state, LinkState::Up { server_id: held, .. } if held == server_id) {
                tracing::warn!(
                    %server, other = %other.server, server_id,
                    "two addresses lead to one server: one session serves both",
                );
                other.state = LinkState::Duplicate {
                    server_id: server_id.to_owned(),
                };
            }
        }
        let up = LinkState::Up {
            server_id: server_id.to_owned(),
            since: SystemTime::now(),
        };
        self.set(server, up);
    }

    /// Notes that the session has ended, unless another address holds the server's by now.
    pub(super) fn down(&self, server: &ServerAddr, reason: &str) {
        if !self.is_duplicate(server) {
            self.set(server, LinkState::Down(Some(reason.to_owned())));
        }
    }

    /// Waits while another address holds the session with the server that this one leads to.
    pub(super) async fn until_needed(&self, server: &ServerAddr) {
        let mut changes = self.changes.subscribe();
        while self.is_duplicate(server) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn is_duplicate(&self, server: &ServerAddr) -> bool {
        let links = self.lock();
        let state = links.get(&server.to_string()).map(|link| &link.state);
        let Some(LinkState::Duplicate { server_id }) = state else {
            return false;
        };
        links.values().any(|other| {
            matches!(&other.state, LinkState::Up { server_id: held, .. } if held == server_id)
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, LinkReport>> {
        // The map is whole between any two of its operations, whatever panicked meanwhile.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FromStr for ServerAddr {
    type Err = UnreadableServerAddr;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unreadable = || UnreadableServerAddr(text.to_owned());
        let with_port = |text: &str| text.parse::<Target>().ok().filter(|target| target.port > 0);
        let bare_ip = text.parse().ok().map(TargetHost::Ip);
        let target = bare_ip
            .map(|host| Target {
                host,
                port: DEFAULT_PORT,
            })
            .or_else(|| with_port(text))
            .or_else(|| with_port(&format!("{text}:{DEFAULT_PORT}")))
            .ok_or_else(unreadable)?;
        let name = match &target.host {
            TargetHost::Ip(ip) => ServerName::IpAddress((*ip).into()),
            TargetHost::Name(name) => {
                ServerName::try_from(name.clone()).map_err(|_| unreadable())?
            }
        };
        Ok(Self(target, name))
    }
}

impl fmt::Display for ServerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_may_be_left_out() {
        for (text, full) in [
            ("10.0.0.1", "10.0.0.1:10262"),
            ("fd00::1", "[fd00::1]:10262"),
            ("[fd00::1]:7", "[fd00::1]:7"),
            ("cloud.example", "cloud.example:10262"),
            ("cloud.example:443", "cloud.example:443"),
        ] {
            assert_eq!(text.parse::<ServerAddr>().unwrap().to_string(), full);
        }
        for text in ["", "a b", "host:0", "host:x", "http://host"] {
            assert!(text.parse::<ServerAddr>().is_err(), "{text:?} was accepted");
        }
    }

    #[tokio::test]
    async fn the_newest_of_two_addresses_of_one_server_holds_it() {
        let servers = Servers::default();
        let (a, b): (ServerAddr, ServerAddr) = ("a".parse().unwrap(), "b".parse().unwrap());
        servers.up(&a, "s-1");
        servers.up(&b, "s-1");
        assert!(servers.is_duplicate(&a) && !servers.is_duplicate(&b));
        servers.set(&b, LinkState::Down(None));
        servers.until_needed(&a).await;
    }
}
