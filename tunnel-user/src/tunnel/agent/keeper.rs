//! Keeps a session to every server: reconnects, moves when a server asks for it, drains at the
//! end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{sync::watch, task::JoinSet, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    LinkState, Policy, Servers,
    backoff::Backoff,
    link::{Link, LinkOptions, LinkSignals},
};
use crate::{
    model::{AgentIdentity, Mark, ServerAddr},
    observability::metrics::AgentMetrics,
    tunnel::Settings,
};

/// What keeping sessions needs.
#[derive(Clone)]
pub struct KeeperOptions {
    /// Where servers listen.
    pub servers: Vec<ServerAddr>,
    /// The name that every server's certificate must carry; `None` verifies the address dialled.
    pub server_name: Option<ServerName<'static>>,
    /// Presents the agent's certificate and verifies servers; replaced when the certificate is.
    pub tls: watch::Receiver<Arc<ClientConfig>>,
    /// What the certificate proves, now and after every renewal.
    pub identity: AgentIdentity,
    /// Limits of each session.
    pub settings: Settings,
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
pub struct Keeper {
    options: KeeperOptions,
    servers: Servers,
}

impl Keeper {
    /// A keeper of sessions to these servers; `servers` shows how it stands with each.
    pub fn new(options: KeeperOptions, servers: Servers) -> Self {
        Self { options, servers }
    }

    /// Runs until `shutdown`, then drains; `abort` ends the draining.
    ///
    /// # Errors
    /// When keeping one of the sessions panicked: its server would be given up for good.
    pub async fn run(
        self,
        shutdown: CancellationToken,
        abort: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut keepers = JoinSet::new();
        for server in self.options.servers.clone() {
            let address = AddressKeeper {
                server,
                options: self.options.clone(),
                servers: self.servers.clone(),
                end: CancellationToken::new(),
                links: TaskTracker::new(),
            };
            keepers.spawn(address.run(shutdown.clone(), abort.clone()));
        }
        while let Some(ended) = keepers.join_next().await {
            ended.context("keeping a session panicked")?;
        }
        Ok(())
    }
}

/// Keeps the session of one address. Sessions that drain go on beside the current one.
struct AddressKeeper {
    server: ServerAddr,
    options: KeeperOptions,
    servers: Servers,
    end: CancellationToken,
    links: TaskTracker,
}

impl AddressKeeper {
    async fn run(self, shutdown: CancellationToken, abort: CancellationToken) {
        tokio::select! {
            () = self.keep(&shutdown) => {}
            () = shutdown.cancelled() => {}
        }
        self.links.close();
        tokio::select! {
            () = self.links.wait() => {}
            () = sleep(self.options.drain_timeout) => {
                tracing::warn!(server = %self.server, "connections outlived the drain: resetting them");
            }
            () = abort.cancelled() => {}
        }
        self.end.cancel();
        self.links.wait().await;
    }

    async fn keep(&self, shutdown: &CancellationToken) {
        let mut backoff = Backoff::default();
        loop {
            self.servers.until_needed(&self.server).await;
            let lasted = self.hold_one(shutdown).await;
            sleep(backoff.after(lasted)).await;
        }
    }

    /// Establishes one session and waits until another is needed; says how long it lasted, zero
    /// if it never came to be.
    async fn hold_one(&self, shutdown: &CancellationToken) -> Duration {
        let link = match self.establish().await {
            Ok(link) => link,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(server = %self.server, error, "no session");
                self.options.metrics.session_failures.inc();
                self.servers.set(&self.server, LinkState::Down(Some(error)));
                return Duration::ZERO;
            }
        };
        let established = Instant::now();
        let info = link.info().clone();
        let server_id = info.server_id.clone();
        tracing::info!(server = %self.server, server_id, "session established");
        self.servers.up(&self.server, info);
        let signals = Arc::new(LinkSignals {
            drain: shutdown.clone(),
            end: self.end.clone(),
            asked_to_move: CancellationToken::new(),
        });
        let asked_to_move = signals.asked_to_move.clone();
        let running = self.links.spawn(async move { link.run(&signals).await });
        tokio::select! {
            reason = running => self.ended(established.elapsed(), reason.unwrap_or("failed")),
            () = asked_to_move.cancelled() => {
                tracing::info!(server = %self.server, server_id, "the server asks for a new session");
                return Duration::MAX;
            }
        }
        established.elapsed()
    }

    fn ended(&self, age: Duration, reason: &str) {
        tracing::info!(server = %self.server, ?age, reason, "session ended");
        self.servers.down(&self.server, reason);
    }

    async fn establish(&self) -> anyhow::Result<Link> {
        let server_name = match &self.options.server_name {
            Some(name) => name.clone(),
            None => self.server.server_name().clone(),
        };
        let tls = Arc::clone(&self.options.tls.borrow());
        let mut metrics = self.options.metrics.clone();
        metrics.connections = metrics.connections.of_session();
        Link::establish(LinkOptions {
            server: self.server.clone(),
            server_name,
            tls,
            identity: self.options.identity.clone(),
            settings: self.options.settings,
            policy: Arc::clone(&self.options.policy),
            mark: self.options.mark,
            metrics,
        })
        .await
    }
}
