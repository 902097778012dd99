//! The server: wires its parts together and runs them until it is told to stop, or a successor
//! takes over.
//!
//! ```text
//!  Source --Snapshot--> NodeTable --> kernel tables          what is captured
//!                  \--> Sessions, AgentListener <-- agents   who carries it
//!                   \-> Transparent <-- redirected clients   who is carried
//! ```

mod parts;
mod sockets;
mod status;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{net::TcpStream, sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use self::{parts::Parts, sockets::Sockets};
use super::{
    handover::{Incumbent, Offer, Predecessor},
    node_table::{NodeTable, SharedRedirect, Told},
    signals::{Signals, Stop},
    tasks::Tasks,
};
use crate::{
    cli::{EbpfLogLevel, ServerArgs},
    frontend::transparent::{OriginalDsts, Transparent, TransparentMetrics, TransparentOptions},
    model::{NodeName, OriginalDst},
    observability::{
        admin::{self, AdminServer},
        meta::MetaServer,
        readiness::Condition,
    },
    redirect::{self, LogLevel, OriginalDestinations, Redirect},
    tunnel::server::{AgentListener, Sessions},
};

/// How long a successor waits for the agents of its predecessor before it takes clients.
const AGENTS_COME: Duration = Duration::from_secs(10);
/// How long after its start a server waits for agents that are still on their way, rather than
/// refuse their clients: as long as an agent may pause between two attempts, and some.
const START_UP: Duration = Duration::from_secs(15);
/// The longest that agents may take to hear the last words.
const SESSIONS_END: Duration = Duration::from_secs(7);

/// Runs the server until it is told to stop.
pub async fn run(args: ServerArgs) -> anyhow::Result<()> {
    if args.uninstall {
        println!("{}", redirect::uninstall(&redirect_options(&args))?);
        return Ok(());
    }
    let stop = Stop::default();
    let signals = Signals::new()?;
    tokio::select! {
        never = signals.run(stop.clone()) => match never {},
        ended = serve(args, stop) => ended,
    }
}

async fn serve(args: ServerArgs, stop: Stop) -> anyhow::Result<()> {
    let (predecessor, mut offer) = match Predecessor::find(&args.run_dir).await? {
        Some((predecessor, offer)) => (Some(predecessor), offer),
        None => (None, Offer::default()),
    };
    let mut server = Server::start(args, &mut offer, predecessor.is_some()).await?;
    server.until_agents_come(&offer.nodes, &stop).await;
    let successor = server.take_clients()?;
    if let Some(predecessor) = predecessor {
        predecessor.dismiss().await;
    }
    let handed_over = CancellationToken::new();
    let outcome = tokio::select! {
        () = successor.run(handed_over.clone()) => Ok(Outcome::HandedOver),
        () = stop.graceful.cancelled() => Ok(Outcome::Stopped),
        error = server.tasks.failed() => Err(error),
    };
    handed_over.cancel();
    server.wind_down(outcome.as_ref().ok(), &stop).await;
    outcome.map(drop)
}

/// Why the server stops taking clients.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// A successor has its sockets, and its gate.
    HandedOver,
    /// It was told to.
    Stopped,
}

/// A running server.
struct Server {
    args: ServerArgs,
    parts: Parts,
    sockets: Sockets,
    redirect: SharedRedirect,
    tasks: Tasks,
    ends: Ends,
    clients: Condition,
    accept_agents: watch::Sender<bool>,
}

/// The ends of a server's tasks, in the order in which they come.
#[derive(Default)]
struct Ends {
    /// Accept no more clients.
    clients: CancellationToken,
    /// Reset the clients that are left.
    abort_clients: CancellationToken,
    /// The last client has gone.
    clients_gone: CancellationToken,
    /// End every session.
    sessions: CancellationToken,
    /// The last session has ended.
    sessions_gone: CancellationToken,
    /// End everything else.
    everything: CancellationToken,
}

impl Server {
    /// Binds, installs the redirect, and takes agents; clients come later.
    async fn start(args: ServerArgs, offer: &mut Offer, takes_over: bool) -> anyhow::Result<Self> {
        let parts = Parts::new(&args).await?;
        let sockets = Sockets::bind(&args, offer, &parts).await?;
        let clients = parts.readiness.register("redirect");
        let mut redirect = Redirect::install(&redirect_options(&args))?;
        let log_task = redirect.take_log_task();
        let mut server = Self {
            redirect: SharedRedirect::new(redirect),
            accept_agents: watch::Sender::new(true),
            tasks: Tasks::default(),
            ends: Ends::default(),
            clients,
            sockets,
            parts,
            args,
        };
        if let Some(log) = log_task {
            let end = server.ends.everything.clone();
            server
                .tasks
                .try_spawn("reading the programs' log", log.run(end));
        }
        server.show_itself(takes_over).await?;
        server.follow_nodes()?;
        server.take_agents()?;
        Ok(server)
    }

    /// Metrics, health and status.
    async fn show_itself(&mut self, takes_over: bool) -> anyhow::Result<()> {
        let incumbent = if takes_over {
            admin::Incumbent::Replace
        } else {
            admin::Incumbent::Respect
        };
        let reporter = status::Reporter::new(&self.args, &self.parts, &self.redirect);
        let admin = AdminServer::new(&self.args.run_dir, incumbent, reporter.into_fn()).await?;
        let registry = self.parts.registry(self.redirect.clone());
        let readiness = self.parts.readiness.clone();
        let meta = MetaServer::on(self.sockets.meta()?, registry, readiness);
        let end = &self.ends.everything;
        self.tasks
            .try_spawn("the admin socket", admin.run(end.clone()));
        self.tasks
            .try_spawn("the meta server", meta.run(end.clone()));
        Ok(())
    }

    /// Nodes come and go: the source, the kernel's tables, this machine's own addresses.
    fn follow_nodes(&mut self) -> anyhow::Result<()> {
        let mut table = NodeTable {
            redirect: self.redirect.clone(),
            snapshots: self.parts.snapshots.clone(),
            own_addresses: self.parts.own_addresses.clone(),
            sessions: self.parts.sessions.clone(),
            offline_nodes: self.args.offline_nodes,
            default_policy: self.args.gate_policy,
            metrics: self.parts.metrics.clone(),
            told: Told::default(),
        };
        table.apply().context("cannot apply the table of nodes")?;
        let end = &self.ends.everything;
        self.tasks
            .spawn("following the table of nodes", table.run(end.clone()));
        self.parts.spawn_sources(&mut self.tasks, end);
        Ok(())
    }

    fn take_agents(&mut self) -> anyhow::Result<()> {
        let listener = AgentListener::new(self.sockets.agents()?, self.parts.listener(&self.args));
        let accepting = self.accept_agents.subscribe();
        let (end, gone) = (self.ends.sessions.clone(), self.ends.sessions_gone.clone());
        self.tasks.spawn("accepting agents", async move {
            listener.run(accepting, end).await;
            gone.cancel();
        });
        Ok(())
    }

    async fn until_agents_come(&self, nodes: &[NodeName], stop: &Stop) {
        tokio::select! {
            come = timeout(AGENTS_COME, all_have_sessions(&self.parts.sessions, nodes)) => {
                if come.is_err() {
                    let missing = missing(&self.parts.sessions, nodes);
                    tracing::warn!(?missing, "taking over without the sessions of some nodes");
                }
            }
            () = stop.graceful.cancelled() => {}
        }
    }

    /// Opens the gate and accepts clients; returns who waits for a successor.
    fn take_clients(&mut self) -> anyhow::Result<Incumbent> {
        let (original_dsts, heartbeat) = {
            let mut redirect = self.redirect.lock();
            redirect.open_gate(&self.sockets.redirect_listeners())?;
            (redirect.original_destinations(), redirect.heartbeat())
        };
        let transparent = Transparent::new(
            self.sockets.clients()?,
            TransparentOptions {
                original_dsts: Arc::new(FromKernel(original_dsts)),
                snapshots: self.parts.snapshots.clone(),
                sessions: self.parts.sessions.clone(),
                dial_timeout: self.args.session.dial_timeout,
                patient_until: Instant::now() + START_UP,
                heartbeat: Box::new(move || {
                    if let Err(error) = heartbeat.beat() {
                        tracing::warn!(%error, "cannot show the kernel that this server is alive");
                    }
                }),
                metrics: TransparentMetrics {
                    connections: self.parts.metrics.connections.clone(),
                    dials: self.parts.metrics.dials.clone(),
                    without_original_dst: self.parts.metrics.without_original_destination.clone(),
                },
            },
        );
        let Ends {
            clients,
            abort_clients,
            clients_gone,
            ..
        } = &self.ends;
        let (stop, abort, gone) = (clients.clone(), abort_clients.clone(), clients_gone.clone());
        self.tasks.spawn("accepting clients", async move {
            transparent.run(stop, abort).await;
            gone.cancel();
        });
        self.clients.ready();
        Incumbent::new(
            &self.args.run_dir,
            self.sockets.offer()?,
            self.parts.sessions.clone(),
            self.accept_agents.clone(),
        )
    }

    /// Finishes what is there, within the time for draining, and ends.
    async fn wind_down(self, outcome: Option<&Outcome>, stop: &Stop) {
        self.clients.not_ready("stopping");
        let handed_over = outcome == Some(&Outcome::HandedOver);
        if !handed_over && let Err(error) = self.redirect.lock().close_gate() {
            tracing::warn!(%error, "cannot close the gate");
        }
        self.ends.clients.cancel();
        tokio::select! {
            () = self.ends.clients_gone.cancelled() => {}
            () = tokio::time::sleep(self.args.session.drain_timeout) => {
                tracing::warn!("connections outlived the drain: resetting them");
            }
            () = stop.abort.cancelled() => {}
        }
        self.ends.abort_clients.cancel();
        self.ends.clients_gone.cancelled().await;
        self.ends.sessions.cancel();
        if timeout(SESSIONS_END, self.ends.sessions_gone.cancelled())
            .await
            .is_err()
        {
            tracing::debug!("some agents did not hear the end of their session");
        }
        self.ends.everything.cancel();
        self.tasks.finished().await;
        if !handed_over {
            self.sockets.remove_service_addresses().await;
        }
        tracing::info!("stopped");
    }
}

/// Original destinations as the kernel programs noted them.
struct FromKernel(OriginalDestinations);

impl OriginalDsts for FromKernel {
    fn of(&self, accepted: &TcpStream) -> io::Result<Option<OriginalDst>> {
        self.0.of(accepted)
    }
}

async fn all_have_sessions(sessions: &Sessions, nodes: &[NodeName]) {
    let mut changes = sessions.changes();
    while !missing(sessions, nodes).is_empty() {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn missing<'a>(sessions: &Sessions, nodes: &'a [NodeName]) -> Vec<&'a str> {
    let missing = nodes.iter().filter(|node| !sessions.has(node));
    missing.map(NodeName::as_str).collect()
}

fn redirect_options(args: &ServerArgs) -> redirect::Options {
    redirect::Options {
        cgroup: args.cgroup.clone(),
        pin_root: args.pin_root.clone(),
        mark: args.mark.number(),
        log_level: match args.ebpf_log_level {
            EbpfLogLevel::Off => None,
            EbpfLogLevel::Info => Some(LogLevel::Info),
            EbpfLogLevel::Debug => Some(LogLevel::Debug),
        },
        ..redirect::Options::default()
    }
}
