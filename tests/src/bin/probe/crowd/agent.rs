//! One agent of the crowd: identity, session manager, and what is counted of it.

use std::net::SocketAddr;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};
use prometheus_client::registry::Registry;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tunnel_user::model::ServerAddr;
use tunnel_user::observability::metrics::AgentMetrics;
use tunnel_user::pki::{
    AgentCsr, Credential, SERVER_NAME, ServerProof, Validity, client_config, new_key, request,
};
use tunnel_user::standalone::{Registration, State};
use tunnel_user::tunnel::agent::{Policy, Servers, SessionManager, SessionManagerOptions};
use tunnel_user::tunnel::{Memory, Settings};

use super::Tally;

const LIFE: Duration = Duration::from_hours(24);
/// More than agents that carry nothing need.
const MEMORY: u64 = 1 << 30;

/// What all agents have in common: also their key, since making one for each takes longer than a handshake.
pub(super) struct Agents<'a> {
    state: &'a State,
    key: Vec<u8>,
    csr: AgentCsr,
    server: watch::Receiver<Vec<ServerAddr>>,
    metrics: AgentMetrics,
    memory: Memory,
}

/// An agent that is about to run.
pub(super) struct Member {
    manager: SessionManager,
    servers: Servers,
}

impl<'a> Agents<'a> {
    pub(super) fn new(state: &'a State, server: SocketAddr) -> Result<Self> {
        let key = new_key()?;
        Ok(Self {
            state,
            csr: AgentCsr::from_der(&request(&key)?)?,
            key: key.serialize_der(),
            server: watch::channel(vec![server.to_string().parse()?]).1,
            metrics: AgentMetrics::register(&mut Registry::default()),
            memory: Memory::new(MEMORY, Settings::default().first_window()),
        })
    }

    pub(super) fn member(&self, node: &Registration) -> Result<Member> {
        let ca = self.state.ca();
        let identity = node.identity();
        let validity = Validity::starting(OffsetDateTime::now_utc(), LIFE);
        let certificate = ca.issue_agent(&self.csr, &identity, validity)?;
        let key = self.key.clone().try_into().map_err(anyhow::Error::msg)?;
        let credential = Credential::new(key, vec![certificate])?;
        let ca = slice::from_ref(ca.certificate());
        let tls = client_config(&credential, ca, ServerProof::OwnCa)?;
        let servers = Servers::default();
        let options = SessionManagerOptions {
            most_sessions: None,
            servers: self.server.clone(),
            server_name: Some(SERVER_NAME.try_into()?),
            tls: watch::channel(Arc::new(tls)).1,
            refused_tx: watch::Sender::new(None),
            identity: watch::channel(identity).1,
            settings: Settings::default(),
            memory: self.memory.clone(),
            policy: Arc::new(Policy::only(Vec::new(), Vec::new())),
            mark: "0x4355".parse()?,
            metrics: self.metrics.clone(),
            drain_timeout: Duration::ZERO,
        };
        Ok(Member {
            manager: SessionManager::new(options, servers.clone()),
            servers,
        })
    }
}

impl Member {
    /// Keeps a session for as long as this process runs.
    pub(super) async fn run(self, tally: Arc<Tally>) -> Result<()> {
        let never = CancellationToken::new();
        let keeping = self.manager.run(never.clone(), never.clone());
        tokio::select! {
            kept = Box::pin(keeping) => kept?,
            () = count(&self.servers, &tally) => {}
        }
        bail!("an agent has ended")
    }
}

async fn count(servers: &Servers, tally: &Tally) {
    let mut changes = servers.changes();
    let mut was_up = false;
    while changes.changed().await.is_ok() {
        let is_up = servers.any_up();
        match (was_up, is_up) {
            (false, true) => {
                tally.up.fetch_add(1, Ordering::Relaxed);
                tally.ever.fetch_add(1, Ordering::Relaxed);
            }
            (true, false) => {
                tally.up.fetch_sub(1, Ordering::Relaxed);
            }
            (false, false) | (true, true) => {}
        }
        was_up = is_up;
    }
}
