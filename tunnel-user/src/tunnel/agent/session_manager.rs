//! Keeps a session with every server: reconnects, looks for those that are missing, moves when a
//! server asks for it, drains at the end.

mod run_loop;

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::run_loop::RunLoop;
use super::{Policy, Servers};
use crate::{
    model::{AgentIdentity, Mark, ServerAddr},
    observability::metrics::AgentMetrics,
    tunnel::{Memory, Settings},
};

/// What keeping sessions needs.
#[derive(Clone)]
pub struct SessionManagerOptions {
    /// Where servers listen, best first. A session through an address that is not listed any more
    /// ends, in order, once the servers are all reached through the others.
    pub servers: watch::Receiver<Vec<ServerAddr>>,
    /// With how many of them a session is kept at most.
    pub most_sessions: Option<NonZeroU32>,
    /// The name that every server's certificate must carry; `None` verifies the address dialled.
    pub server_name: Option<ServerName<'static>>,
    /// Presents the agent's certificate and verifies servers; replaced when the certificate is.
    pub tls: watch::Receiver<Arc<ClientConfig>>,
    /// `this --a configuration whose certificate a server refused--> who gets certificates`
    pub refused_tx: watch::Sender<Option<Arc<ClientConfig>>>,
    /// What the certificate proves. Each session registers what it proves by then.
    pub identity: watch::Receiver<AgentIdentity>,
    /// Limits of each session.
    pub settings: Settings,
    /// What the connections of all sessions may hold.
    pub memory: Memory,
    /// What may be dialled.
    pub policy: Arc<Policy>,
    /// Put on the agent's own sockets where the process may: a redirect on this machine leaves
    /// them alone.
    pub mark: Mark,
    /// What to count.
    pub metrics: AgentMetrics,
    /// How long connections may go on once the agent is asked to stop.
    pub drain_timeout: Duration,
}

/// Keeps sessions.
pub struct SessionManager {
    options: SessionManagerOptions,
    servers: Servers,
}

impl SessionManager {
    /// A manager of sessions with these servers; `servers` shows how it stands with each.
    pub fn new(options: SessionManagerOptions, servers: Servers) -> Self {
        Self { options, servers }
    }

    /// Runs until `shutdown`, then drains; `abort` ends the draining.
    ///
    /// # Errors
    /// When dialling or keeping a session panicked: a server would be given up for good.
    pub async fn run(
        self,
        shutdown: CancellationToken,
        abort: CancellationToken,
    ) -> anyhow::Result<()> {
        let drain_timeout = self.options.drain_timeout;
        let mut run_loop = RunLoop::new(self.options, self.servers, shutdown);
        run_loop.keep().await?;
        run_loop.finish(drain_timeout, &abort).await
    }
}
