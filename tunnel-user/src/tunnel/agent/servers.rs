//! The servers that an agent knows, and how it stands with each.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::watch;

use crate::{model::ServerAddr, observability::metrics::AgentConnections, tunnel::carry::Meter};

/// An established session.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    /// The server's id.
    pub server_id: String,
    /// The server's end of the TCP connection.
    pub remote: SocketAddr,
    /// Since when.
    pub since: SystemTime,
    /// What it carries.
    pub(super) meter: Arc<Meter>,
    /// Counts its connections.
    pub(super) connections: AgentConnections,
}

/// How it stands with one server address.
#[derive(Clone, Debug)]
pub enum LinkState {
    /// No session; the last failure, if there was one.
    Down(Option<String>),
    /// A session is established.
    Up(LinkInfo),
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

impl LinkInfo {
    /// Bytes from targets to clients, and from clients to targets.
    pub fn bytes(&self) -> (u64, u64) {
        self.meter.read()
    }

    /// Connections that are open in it.
    pub fn open_connections(&self) -> u64 {
        self.connections.open_in_session()
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
            .any(|link| matches!(link.state, LinkState::Up(_)))
    }

    /// Ticks whenever a link's state changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn set(&self, server: &ServerAddr, state: LinkState) {
        insert(&mut self.lock(), server, state);
        self.changed();
    }

    /// Notes the session, and takes the server from whichever other address has it.
    pub(super) fn up(&self, server: &ServerAddr, link: LinkInfo) {
        {
            let mut links = self.lock();
            let others = links.values_mut().filter(|other| other.server != *server);
            for other in others.filter(|other| other.has_session_with(&link.server_id)) {
                tracing::warn!(
                    %server, other = %other.server, server_id = link.server_id,
                    "two addresses lead to one server: one session serves both",
                );
                other.state = LinkState::Duplicate {
                    server_id: link.server_id.clone(),
                };
            }
            insert(&mut links, server, LinkState::Up(link));
        }
        self.changed();
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
        links.values().any(
            |other| matches!(&other.state, LinkState::Up(held) if held.server_id == *server_id),
        )
    }

    fn changed(&self) {
        self.changes.send_modify(|change| *change += 1);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, LinkReport>> {
        // The map is whole between any two of its operations, whatever panicked meanwhile.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinkReport {
    fn has_session_with(&self, server_id: &str) -> bool {
        matches!(&self.state, LinkState::Up(link) if link.server_id == server_id)
    }
}

fn insert(links: &mut BTreeMap<String, LinkReport>, server: &ServerAddr, state: LinkState) {
    let report = LinkReport {
        server: server.clone(),
        state,
    };
    links.insert(server.to_string(), report);
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    fn link(server_id: &str) -> LinkInfo {
        LinkInfo {
            server_id: server_id.to_owned(),
            remote: "192.0.2.1:10262".parse().unwrap(),
            since: SystemTime::UNIX_EPOCH,
            meter: Arc::new(Meter::new(Counter::default(), Counter::default())),
            connections: AgentConnections::default(),
        }
    }

    #[tokio::test]
    async fn the_newest_of_two_addresses_of_one_server_holds_it() {
        let servers = Servers::default();
        let (a, b): (ServerAddr, ServerAddr) = ("a".parse().unwrap(), "b".parse().unwrap());
        servers.up(&a, link("s-1"));
        servers.up(&b, link("s-1"));
        assert!(servers.is_duplicate(&a) && !servers.is_duplicate(&b));
        servers.set(&b, LinkState::Down(None));
        servers.until_needed(&a).await;
    }
}
