//! The servers that an agent knows, and how it stands with each.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::watch;

use super::session_set::SessionId;
use crate::{
    model::ServerAddr, observability::metrics::AgentConnections, tunnel::carry::ByteCounters,
};

/// An established session.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// The server's id.
    pub server_id: String,
    /// The server's end of the TCP connection.
    pub remote: SocketAddr,
    /// Since when.
    pub since: SystemTime,
    /// What it carries.
    pub(super) counters: Arc<ByteCounters>,
    /// Counts its connections.
    pub(super) connections: AgentConnections,
}

/// How it stands with one server address.
#[derive(Clone, Debug)]
pub enum ServerState {
    /// No session; the last failure, if there was one.
    Down(Option<String>),
    /// A session is established.
    Up(SessionInfo),
    /// The address leads to a server that another address has a session with already.
    Duplicate {
        /// That server's id.
        server_id: String,
    },
}

/// One server address and how it stands with it.
#[derive(Clone, Debug)]
pub struct ServerReport {
    /// The address.
    pub server: ServerAddr,
    /// How it stands.
    pub state: ServerState,
}

/// What the session manager shows of them: several behind one address, perhaps.
#[derive(Clone, Default)]
pub struct Servers {
    shown: Arc<Mutex<Shown>>,
    changes: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct Shown {
    sessions: BTreeMap<SessionId, ShownSession>,
    /// Addresses that have no session of their own; by text, for the order.
    without: BTreeMap<String, ServerReport>,
}

struct ShownSession {
    server: ServerAddr,
    info: SessionInfo,
    /// It only finishes what it carries, or waits for the one that replaces it.
    leaves: bool,
}

impl SessionInfo {
    /// Bytes from targets to clients, and from clients to targets.
    pub fn bytes(&self) -> (u64, u64) {
        self.counters.read()
    }

    /// Connections that are open in it.
    pub fn open_connections(&self) -> u64 {
        self.connections.open_in_session()
    }
}

impl Servers {
    /// Every session, and every address that has none. One that leaves counts only while there is
    /// no other.
    pub fn reports(&self) -> Vec<ServerReport> {
        let shown = self.lock();
        let stays = shown.sessions.values().any(|session| !session.leaves);
        let sessions = shown.sessions.values().filter(|one| !one.leaves || !stays);
        let up = sessions.map(|session| ServerReport {
            server: session.server.clone(),
            state: ServerState::Up(session.info.clone()),
        });
        up.chain(shown.without.values().cloned()).collect()
    }

    /// Whether at least one session is up.
    pub fn any_up(&self) -> bool {
        !self.lock().sessions.is_empty()
    }

    /// Ticks whenever a session comes, goes or changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// These are the addresses, and no others.
    pub(super) fn list(&self, servers: &[ServerAddr]) {
        self.change(|shown| {
            shown
                .without
                .retain(|_, known| servers.contains(&known.server));
            for server in servers {
                if !shown.has_session(server) && !shown.without.contains_key(&server.to_string()) {
                    shown.set(server, ServerState::Down(None));
                }
            }
        });
    }

    pub(super) fn up(&self, session: SessionId, server: &ServerAddr, info: SessionInfo) {
        self.change(|shown| {
            shown.without.remove(&server.to_string());
            let shows = ShownSession {
                server: server.clone(),
                info,
                leaves: false,
            };
            shown.sessions.insert(session, shows);
        });
    }

    /// Another session takes this one's place, perhaps one with the same server.
    pub(super) fn leaves(&self, session: SessionId, replaced: bool) {
        self.change(|shown| {
            let Some(session) = shown.sessions.get_mut(&session) else {
                return;
            };
            session.leaves = true;
            let (server, server_id) = (session.server.clone(), session.info.server_id.clone());
            if replaced && !shown.has_session(&server) {
                shown.set(&server, ServerState::Duplicate { server_id });
            }
        });
    }

    pub(super) fn down(&self, session: SessionId, reason: &str) {
        self.change(|shown| {
            let Some(ShownSession { server, leaves, .. }) = shown.sessions.remove(&session) else {
                return;
            };
            let told = leaves && shown.without.contains_key(&server.to_string());
            if !told && !shown.has_session(&server) {
                shown.set(&server, ServerState::Down(Some(reason.to_owned())));
            }
        });
    }

    /// A dial of the address has failed; whether for a new reason.
    pub(super) fn failed(&self, server: &ServerAddr, reason: &str) -> bool {
        let mut news = true;
        self.change(|shown| {
            let known = shown.without.get(&server.to_string());
            let known = known.map(|known| &known.state);
            news = !matches!(known, Some(ServerState::Down(Some(known))) if known == reason);
            if !shown.has_session(server) {
                shown.set(server, ServerState::Down(Some(reason.to_owned())));
            }
        });
        news
    }

    /// The address leads to a server that another address has a session with.
    pub(super) fn is_duplicate(&self, server: &ServerAddr, server_id: String) {
        self.change(|shown| {
            if !shown.has_session(server) {
                shown.set(server, ServerState::Duplicate { server_id });
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.lock());
        self.changes.send_modify(|change| *change += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        // The maps are whole between any two of their operations, whatever panicked meanwhile.
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    fn has_session(&self, server: &ServerAddr) -> bool {
        let mut sessions = self.sessions.values();
        sessions.any(|session| session.server == *server && !session.leaves)
    }

    fn set(&mut self, server: &ServerAddr, state: ServerState) {
        let report = ServerReport {
            server: server.clone(),
            state,
        };
        self.without.insert(server.to_string(), report);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    fn session(server_id: &str) -> SessionInfo {
        SessionInfo {
            server_id: server_id.to_owned(),
            remote: "192.0.2.1:10262".parse().unwrap(),
            since: SystemTime::UNIX_EPOCH,
            counters: Arc::new(ByteCounters::new(Counter::default(), Counter::default())),
            connections: AgentConnections::default(),
        }
    }

    fn shown(servers: &Servers) -> Vec<String> {
        let reports = servers.reports().into_iter();
        let text = |report: ServerReport| match report.state {
            ServerState::Up(info) => format!("{} up {}", report.server, info.server_id),
            ServerState::Down(reason) => {
                format!("{} {}", report.server, reason.unwrap_or_default())
            }
            ServerState::Duplicate { server_id } => format!("{} dup {server_id}", report.server),
        };
        reports.map(text).collect()
    }

    #[test]
    fn every_session_is_shown_and_every_address_without() {
        let servers = Servers::default();
        let list: Vec<ServerAddr> = ["a", "b"].map(|host| host.parse().unwrap()).into();
        servers.list(&list);
        servers.up(SessionId(1), &list[0], session("s-1"));
        servers.up(SessionId(2), &list[0], session("s-2"));
        assert!(servers.failed(&list[1], "refused"));
        assert!(!servers.failed(&list[1], "refused"));
        let [a, b] = ["a:10262", "b:10262"];
        let up = [format!("{a} up s-1"), format!("{a} up s-2")];
        let mut expected = up.to_vec();
        expected.push(format!("{b} refused"));
        assert_eq!(shown(&servers), expected);

        servers.up(SessionId(3), &list[1], session("s-1"));
        servers.leaves(SessionId(1), true);
        servers.leaves(SessionId(2), false);
        servers.down(SessionId(2), "closed");
        assert_eq!(
            shown(&servers),
            [format!("{b} up s-1"), format!("{a} closed")]
        );
        servers.list(&list[1..]);
        assert_eq!(shown(&servers), [format!("{b} up s-1")]);
    }

    #[test]
    fn a_session_that_is_asked_to_move_is_shown_until_the_next_one_is_there() {
        let servers = Servers::default();
        let server: ServerAddr = "a".parse().unwrap();
        servers.up(SessionId(1), &server, session("s-1"));
        servers.leaves(SessionId(1), false);
        assert_eq!(shown(&servers), ["a:10262 up s-1"]);
        servers.up(SessionId(2), &server, session("s-2"));
        assert_eq!(shown(&servers), ["a:10262 up s-2"]);
        servers.down(SessionId(1), "closed");
        assert_eq!(shown(&servers), ["a:10262 up s-2"]);
    }
}
