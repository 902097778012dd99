//! The server: wires its parts together and runs them until it is told to stop, or a successor
//! takes over.
//!
//! ```text
//!  Source --Snapshot--> NodeTable --> kernel tables          what is captured
//!                  \--> Sessions, AgentListener <-- agents   who carries it
//!                   \-> Transparent <-- redirected clients   who is carried
//! ```

mod backing;
mod client_sockets;
mod parts;
mod ranges;
mod renumbering;
mod sockets;
mod status;
mod takeover;
mod wind_down;

use std::{collections::BTreeSet, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{net::TcpStream, sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{
    parts::Parts,
    ranges::Unreached,
    renumbering::Renumbering,
    sockets::Sockets,
    wind_down::{Ends, Outcome},
};
use super::{
    arrival::{Prober, Verdicts},
    descriptors,
    handover::{Incumbent, Offer, Predecessor},
    node_table::{NodeTable, SharedRedirect, Told},
    signals::{Signals, Stop},
    tasks::Tasks,
};
use crate::{
    frontend::transparent::{
        Accepting, Arrivals, ClientNetworks, OriginalDsts, Transparent, TransparentMetrics,
        TransparentOptions, TransparentStops,
    },
    model::{Family, OriginalDst},
    observability::{
        admin::{self, AdminServer},
        meta::MetaServer,
        readiness::Condition,
    },
    redirect::{self, LogLevel, OriginalDestinations, Redirect, Sharing, addresses::local_route},
    settings::{EbpfLogLevel, LoopbackPortClients, ServerArgs},
    tunnel::server::AgentListener,
};

/// How long after its start a server waits for agents that are still on their way, rather than
/// refuse their clients: as long as an agent may pause between two attempts, and some.
const START_UP: Duration = Duration::from_secs(15);
/// What a second signal leaves to end in order.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Runs the server until it is told to stop.
pub async fn run(args: ServerArgs) -> anyhow::Result<()> {
    if args.uninstall {
        println!("{}", redirect::uninstall(&redirect_options(&args))?);
        local_route::remove_all().await;
        return Ok(());
    }
    descriptors::raise_limit();
    let stop = Stop::default();
    let signals = Signals::new()?;
    tokio::select! {
        never = signals.run(stop.clone()) => match never {},
        ended = serve(args, stop.clone()) => ended,
        () = stop.aborted_for(AT_ONCE) => Ok(()),
    }
}

async fn serve(args: ServerArgs, stop: Stop) -> anyhow::Result<()> {
    let (predecessor, mut offer) = match Predecessor::find(&args.run_dir).await? {
        Some((predecessor, offer)) => (Some(predecessor), offer),
        None => (None, Offer::default()),
    };
    if predecessor.is_none() {
        // Before anything is bound; the installation makes sure.
        redirect::refuse_in_use(&redirect_options(&args))?;
    }
    let mut server = Server::start(args, &mut offer, predecessor.is_some()).await?;
    if !server.until_able(predecessor.is_some(), &stop).await? {
        tracing::info!("told to stop before it was able to serve");
        return Ok(());
    }
    if predecessor.is_some() {
        server.until_agents_come(&offer.nodes, &stop).await;
        if stop.graceful.is_cancelled() {
            tracing::info!("told to stop before it took over: the server that runs goes on");
            return Ok(());
        }
        // Only now: should this server fail to get here, the other still answers.
        let directory = server.args.run_dir.clone();
        server
            .answer_status(&directory, admin::Incumbent::Replace)
            .await?;
    }
    let successor = server.take_clients()?;
    match predecessor {
        Some(predecessor) => {
            predecessor.dismiss().await;
            let end = server.ends.everything.clone();
            let redirect = server.redirect.clone();
            server.tasks.spawn(
                "letting the ranges be used",
                ranges::use_when_alone(redirect, end),
            );
        }
        // What is pinned may be of one that used others, or none.
        None => server.redirect.lock().use_ranges()?,
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

/// A running server.
struct Server {
    args: ServerArgs,
    parts: Parts,
    sockets: Sockets,
    redirect: SharedRedirect,
    tasks: Tasks,
    ends: Ends,
    clients: Condition,
    /// Whether this server takes agents and writes the kernel's tables; during a handover it does
    /// neither.
    in_charge: watch::Sender<bool>,
    patient_until: Instant,
}

impl Server {
    /// Binds, installs the redirect, and takes agents; clients come later.
    async fn start(args: ServerArgs, offer: &mut Offer, takes_over: bool) -> anyhow::Result<Self> {
        let ends = Ends::default();
        let in_charge = watch::Sender::new(true);
        let parts = Parts::new(&args, in_charge.subscribe(), &ends).await?;
        let sockets = Sockets::bind(&args, offer, &parts).await?;
        let clients = parts.readiness.register("redirect");
        let sharing = if takes_over {
            Sharing::WithPredecessor
        } else {
            Sharing::Alone
        };
        let own_addresses = Arc::clone(&parts.own_addresses.borrow());
        let ranges = ranges::route(&args, &own_addresses).await?;
        let mut redirect = Redirect::install(&redirect::Options {
            sharing,
            ranges,
            ..redirect_options(&args)
        })?;
        let log_task = redirect.take_log_task();
        let routed = ranges::keep_routed(ranges, ends.everything.clone());
        let mut server = Self {
            redirect: SharedRedirect::new(redirect),
            in_charge,
            patient_until: Instant::now() + START_UP,
            tasks: Tasks::default(),
            ends,
            clients,
            sockets,
            parts,
            args,
        };
        server.tasks.spawn("keeping the ranges routed", routed);
        if let Some(log) = log_task {
            let end = server.ends.everything.clone();
            server
                .tasks
                .try_spawn("reading the programs' log", log.run(end));
        }
        if let Some(directory) = server.args.probe_dir.clone() {
            server
                .answer_status(&directory, admin::Incumbent::Replace)
                .await?;
        }
        if !takes_over {
            let directory = server.args.run_dir.clone();
            server
                .answer_status(&directory, admin::Incumbent::Respect)
                .await?;
        }
        server.show_itself()?;
        let end = server.ends.everything.clone();
        server.parts.spawn_sources(&mut server.tasks, &end);
        server.take_agents()?;
        Ok(server)
    }

    /// `culvert status`.
    async fn answer_status(
        &mut self,
        directory: &Path,
        incumbent: admin::Incumbent,
    ) -> anyhow::Result<()> {
        let reporter = status::Reporter::new(
            &self.args,
            &self.parts,
            &self.redirect,
            &self.sockets.clients,
        );
        let admin = AdminServer::new(directory, incumbent, reporter.into_fn()).await?;
        let end = self.ends.everything.clone();
        self.tasks.try_spawn("the admin socket", admin.run(end));
        Ok(())
    }

    /// Metrics and health.
    fn show_itself(&mut self) -> anyhow::Result<()> {
        let registry = self.parts.registry(&self.redirect);
        let readiness = self.parts.readiness.clone();
        let meta = MetaServer::on(self.sockets.meta()?, registry, readiness);
        let end = self.ends.meta.clone();
        self.tasks.try_spawn("the meta server", meta.run(end));
        Ok(())
    }

    fn take_agents(&mut self) -> anyhow::Result<()> {
        let listener = AgentListener::new(self.sockets.agents()?, self.parts.listener(&self.args));
        let accepting = self.in_charge.subscribe();
        let end = self.ends.sessions.clone();
        let gone = self.ends.sessions_gone.clone().drop_guard();
        self.tasks.try_spawn("accepting agents", async move {
            let ended = listener.run(accepting, end).await;
            drop(gone);
            ended
        });
        Ok(())
    }

    /// Tells the kernel what to capture, and keeps it told.
    fn capture(
        &mut self,
        set_aside: watch::Receiver<BTreeSet<Family>>,
        probes: watch::Sender<Vec<SocketAddr>>,
    ) -> anyhow::Result<()> {
        let mut table = NodeTable {
            redirect: self.redirect.clone(),
            snapshots: self.parts.snapshots.clone(),
            own_addresses: self.parts.own_addresses.clone(),
            surroundings: self.parts.surroundings.clone(),
            guards_loopback_ports: self.args.loopback_port_clients == LoopbackPortClients::Host,
            sessions: self.parts.sessions.clone(),
            offline_nodes: self.args.offline_nodes,
            patient_until: self.patient_until,
            default_policy: self.args.gate_policy,
            in_charge: self.in_charge.subscribe(),
            set_aside,
            probes,
            applied: self.parts.readiness.register("table"),
            metrics: self.parts.metrics.clone(),
            told: Told::default(),
        };
        table.apply().context("cannot apply the table of nodes")?;
        let end = self.ends.everything.clone();
        self.tasks
            .spawn("following the table of nodes", table.run(end));
        Ok(())
    }

    /// Captures clients, opens the gate and accepts them; returns who waits for a successor.
    fn take_clients(&mut self) -> anyhow::Result<Incumbent> {
        let (set_aside, probes) = (watch::Sender::default(), watch::Sender::default());
        let accepting = Accepting {
            condition: self.parts.readiness.register("accept"),
            works: watch::Sender::new(true),
        };
        let arrival = Prober {
            targets: probes.subscribe(),
            listeners: self.sockets.clients.subscribe(),
            arrivals: Arrivals::default(),
            in_charge: self.in_charge.subscribe(),
            accepting: accepting.works.subscribe(),
            redirect: self.redirect.clone(),
            condition: self.parts.readiness.register("arrival"),
            metrics: self.parts.metrics.clone(),
            verdicts: Verdicts::default(),
            set_aside: set_aside.clone(),
        };
        self.capture(set_aside.subscribe(), probes)?;
        self.accept_clients(accepting, arrival.arrivals.clone())?;
        let end = self.ends.clients.clone();
        self.tasks
            .spawn("proving that captured connects arrive", arrival.run(end));
        self.watch_unreached();
        self.follow_addresses();
        self.clients.ready();
        Incumbent::new(
            &self.args.run_dir,
            self.sockets.offer()?,
            self.parts.sessions.clone(),
            self.in_charge.clone(),
        )
    }

    fn follow_addresses(&mut self) {
        let renumbering = Renumbering {
            surroundings: self.parts.surroundings.clone(),
            sockets: self.sockets.clients.clone(),
            redirect: self.redirect.clone(),
            clients: self.args.captured_clients(),
            in_charge: self.in_charge.subscribe(),
            condition: self.parts.readiness.register("address"),
        };
        let end = self.ends.clients.clone();
        self.tasks.spawn(
            "following where redirected connects arrive",
            renumbering.run(end),
        );
    }

    /// Tells from which network namespaces nothing arrives. Readiness is not for pods to decide.
    fn watch_unreached(&mut self) {
        let (namespaces, original_dsts) = {
            let redirect = self.redirect.lock();
            (redirect.namespaces(), redirect.original_destinations())
        };
        let unreached = Unreached {
            namespaces,
            original_dsts,
            sockets: self.sockets.clients.clone(),
        };
        let end = self.ends.clients.clone();
        self.tasks
            .spawn("watching from where nothing arrives", unreached.run(end));
    }

    fn accept_clients(&mut self, accepting: Accepting, arrivals: Arrivals) -> anyhow::Result<()> {
        let (original_dsts, heartbeat) = {
            let mut redirect = self.redirect.lock();
            self.sockets
                .clients
                .with_listeners(|listeners| redirect.open_gate(listeners))?;
            (redirect.original_destinations(), redirect.heartbeat())
        };
        let transparent = Transparent::new(
            self.sockets.clients.subscribe(),
            TransparentOptions {
                original_dsts: Arc::new(FromKernel(original_dsts)),
                clients: ClientNetworks {
                    networks: self.args.client_networks(),
                    own_addresses: self.parts.own_addresses.clone(),
                },
                snapshots: self.parts.snapshots.clone(),
                sessions: self.parts.sessions.clone(),
                dial_timeout: self.args.session.dial_timeout,
                patient_until: self.patient_until,
                on_no_session: Arc::clone(&self.parts.on_no_session),
                heartbeat: Box::new(move || {
                    if let Err(error) = heartbeat.beat() {
                        tracing::warn!(%error, "cannot show the kernel that this server is alive");
                    }
                }),
                accepting,
                arrivals,
                metrics: TransparentMetrics {
                    connections: self.parts.metrics.connections.clone(),
                    dials: self.parts.metrics.dials.clone(),
                    clients_refused: self.parts.metrics.clients_refused.clone(),
                    without_original_dst: self.parts.metrics.without_original_destination.clone(),
                },
            },
        )?;
        let stops = TransparentStops {
            accepting: self.ends.clients.clone(),
            handed_over: self.ends.handed_over.clone(),
            abort: self.ends.abort_clients.clone(),
        };
        let gone = self.ends.clients_gone.clone().drop_guard();
        self.tasks.spawn("accepting clients", async move {
            transparent.run(stops).await;
            drop(gone);
        });
        Ok(())
    }
}

/// Original destinations as the kernel programs noted them.
struct FromKernel(OriginalDestinations);

impl OriginalDsts for FromKernel {
    fn of(&self, accepted: &TcpStream) -> io::Result<Option<OriginalDst>> {
        self.0.of(accepted)
    }
}

fn redirect_options(args: &ServerArgs) -> redirect::Options {
    redirect::Options {
        cgroup: args.cgroup.clone(),
        pin_root: args.pin_root.clone(),
        mark: args.mark.number(),
        clients: args.captured_clients(),
        log_level: match args.ebpf_log_level {
            EbpfLogLevel::Off => None,
            EbpfLogLevel::Info => Some(LogLevel::Info),
            EbpfLogLevel::Debug => Some(LogLevel::Debug),
        },
        ..redirect::Options::default()
    }
}
