//! The server: wires its parts together and runs them until it is told to stop, or a successor
//! takes over.
//!
//! ```text
//!  Source --Snapshot--> NodeTable --> kernel tables          what is captured
//!                  \--> Sessions, AgentListener <-- agents   who carries it
//!                  \--> Transparent <-- redirected clients   who is carried
//!                  \--> Https <-- clients that name nodes    the same, by TLS
//!                   \-> HttpFrontend <-- requests            the same, by HTTP
//! ```

mod awaited;
mod client_sockets;
mod clients;
mod components;
mod driver;
mod http;
mod https;
mod lifecycle;
mod platform;
mod ranges;
mod renumbering;
mod shutdown_tokens;
mod sockets;
mod status;
mod yurt_tunnel;

use std::{path::Path, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use self::{
    awaited::Awaited, components::Components, driver::Driver, lifecycle::Event,
    shutdown_tokens::ShutdownTokens, sockets::Sockets, yurt_tunnel::YurtTunnelRules,
};
use super::{
    descriptors,
    node_table::SharedRedirect,
    signals::{Signals, Stop},
    socket_takeover::{Offer, Predecessor},
    tasks::Tasks,
};
use crate::{
    observability::{
        admin::{self, AdminServer},
        meta::MetaServer,
        readiness::Condition,
    },
    redirect::{self, LocalRanges, LogLevel, Redirect, Sharing, addresses::local_route},
    settings::{EbpfLogLevel, ServerArgs},
    tunnel::server::AgentListener,
    yurt_tunnel::Leftover,
};

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
    let server = Server::start(args, &mut offer, predecessor.is_some()).await?;
    Driver::new(server, predecessor, offer, &stop).run().await
}

/// A running server.
struct Server {
    args: ServerArgs,
    components: Components,
    sockets: Sockets,
    redirect: SharedRedirect,
    /// Those that are routed to this machine for it.
    ranges: LocalRanges,
    tasks: Tasks,
    shutdown: ShutdownTokens,
    /// What the server's life waits for.
    awaited: Awaited,
    clients: Condition,
    /// Whether this server takes agents and writes the kernel's tables; during a takeover it does
    /// neither.
    in_charge: watch::Sender<bool>,
    patient_until: Instant,
    /// What Yurt-Tunnel left on this machine.
    yurt_tunnel: watch::Receiver<Vec<Leftover>>,
    /// Another server served until this one did.
    takes_over: bool,
}

impl Server {
    /// Binds, installs the redirect, and takes agents; its [life](lifecycle::Lifecycle) begins with that.
    async fn start(args: ServerArgs, offer: &mut Offer, takes_over: bool) -> anyhow::Result<Self> {
        let shutdown = ShutdownTokens::default();
        let in_charge = watch::Sender::new(true);
        let components = Components::new(&args, in_charge.subscribe(), &shutdown).await?;
        let sockets = Sockets::bind(&args, offer, &components).await?;
        let clients = components.readiness.register("redirect");
        let sharing = if takes_over {
            Sharing::WithPredecessor
        } else {
            Sharing::Alone
        };
        let own_addresses = Arc::clone(&components.own_addresses.borrow());
        let yurt_tunnel = YurtTunnelRules::look();
        let ranges = ranges::route(&args, &own_addresses, &yurt_tunnel).await?;
        let mut redirect = Redirect::install(&redirect::Options {
            sharing,
            ranges,
            ..redirect_options(&args)
        })?;
        let log_task = redirect.take_log_task();
        let routed = ranges::keep_routed(ranges, shutdown.everything.clone());
        let mut server = Self {
            redirect: SharedRedirect::new(redirect),
            ranges,
            in_charge,
            patient_until: Instant::now() + args.startup_grace,
            yurt_tunnel: yurt_tunnel.subscribe(),
            takes_over,
            tasks: Tasks::default(),
            shutdown,
            awaited: Awaited::default(),
            clients,
            sockets,
            components,
            args,
        };
        server
            .tasks
            .spawn("maintaining the local routes of the ranges", routed);
        let end = server.shutdown.everything.clone();
        server
            .tasks
            .spawn("looking for Yurt-Tunnel's rules", yurt_tunnel.follow(end));
        if let Some(log) = log_task {
            let end = server.shutdown.everything.clone();
            server.tasks.try_spawn("reading the eBPF log", log.run(end));
        }
        if let Some(directory) = server.args.probe_dir.clone() {
            server
                .answer_status(&directory, admin::OnConflict::Replace)
                .await?;
        }
        if !takes_over {
            let directory = server.args.run_dir.clone();
            server
                .answer_status(&directory, admin::OnConflict::Respect)
                .await?;
        }
        server.show_itself()?;
        let end = server.shutdown.everything.clone();
        server.components.spawn_sources(&mut server.tasks, &end);
        server.take_agents()?;
        Ok(server)
    }

    /// `culvert status`.
    async fn answer_status(
        &mut self,
        directory: &Path,
        on_conflict: admin::OnConflict,
    ) -> anyhow::Result<()> {
        let reporter = status::Reporter::new(
            &self.args,
            &self.components,
            &self.redirect,
            &self.sockets.clients,
            &self.yurt_tunnel,
        );
        let admin = AdminServer::new(directory, on_conflict, reporter.into_fn()).await?;
        let end = self.shutdown.everything.clone();
        self.tasks.try_spawn("the admin socket", admin.run(end));
        Ok(())
    }

    /// Metrics and health.
    fn show_itself(&mut self) -> anyhow::Result<()> {
        let registry = self.components.registry(&self.redirect);
        let readiness = self.components.readiness.clone();
        let meta = MetaServer::on(self.sockets.meta()?, registry, readiness);
        let end = self.shutdown.meta.clone();
        self.tasks.try_spawn("the meta server", meta.run(end));
        Ok(())
    }

    fn take_agents(&mut self) -> anyhow::Result<()> {
        let Some(socket) = self.sockets.agents()? else {
            // Nor are there any to wait for.
            drop(self.awaited.guard(Event::SessionsGone));
            return Ok(());
        };
        let listener = AgentListener::new(socket, self.components.listener(&self.args));
        let accepting = self.in_charge.subscribe();
        let end = self.shutdown.sessions.clone();
        let gone = self.awaited.guard(Event::SessionsGone);
        self.tasks.try_spawn("accepting agents", async move {
            let ended = listener.run(accepting, end).await;
            drop(gone);
            ended
        });
        Ok(())
    }

    fn use_ranges_when_alone(&mut self) {
        let end = self.shutdown.everything.clone();
        let redirect = self.redirect.clone();
        self.tasks.spawn(
            "enabling the ranges after a takeover",
            ranges::use_when_alone(redirect, end),
        );
    }

    /// Closes the listening sockets; who accepts agents closes its own once nobody can be in charge again.
    fn leave_sockets(&mut self) {
        self.sockets.leave();
        self.in_charge = watch::Sender::new(false);
    }

    fn close_gate(&self) {
        if let Err(error) = self.redirect.lock().close_gate() {
            tracing::warn!(%error, "cannot close the gate");
        }
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
