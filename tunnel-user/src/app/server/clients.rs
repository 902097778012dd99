//! Clients: what the kernel captures of them, where it sends them, and that they arrive and are accepted.

use std::{collections::BTreeSet, io, net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use tokio::{net::TcpStream, sync::watch};

use super::{
    Server, awaited::Guard, lifecycle::Event, ranges::Unreached, renumbering::Renumbering,
};
use crate::{
    app::{
        arrival::{Prober, Verdicts},
        node_table::{LogDedup, NodeTable},
        service_table::ServiceSync,
    },
    frontend::{
        Accepting, Carrier, ClientNetworks, OwnAddresses, Stops,
        transparent::{AcceptSigns, Arrivals, OriginalDsts, Transparent, TransparentOptions},
    },
    model::{Family, OriginalDst},
    redirect::{OriginalDestinations, Table, TableBuilder},
    tunnel::{Dialer, DialerOptions},
};

impl Server {
    /// Captures clients, opens the gate and accepts them.
    pub(super) fn take_clients(&mut self) -> anyhow::Result<()> {
        let (set_aside, probes) = (watch::Sender::default(), watch::Sender::default());
        let accepting = Accepting {
            condition: self.components.readiness.register("accept"),
            works: watch::Sender::new(true),
        };
        let arrival = Prober {
            targets: probes.subscribe(),
            listeners: self.sockets.clients.subscribe(),
            arrivals: Arrivals::default(),
            in_charge: self.in_charge.subscribe(),
            accepting: accepting.works.subscribe(),
            redirect: self.redirect.clone(),
            condition: self.components.readiness.register("arrival"),
            metrics: self.components.metrics.clone(),
            verdicts: Verdicts::default(),
            set_aside: set_aside.clone(),
        };
        self.capture(set_aside.subscribe(), probes)?;
        // Once the last frontend has let go of it, no client is left.
        let gone = Arc::new(self.awaited.guard(Event::ClientsGone));
        self.accept_clients(accepting, arrival.arrivals.clone(), &gone)?;
        self.accept_https_clients(Arc::clone(&gone))?;
        self.drain_relayed_clients(Arc::clone(&gone));
        self.serve_http(gone)?;
        let end = self.shutdown.service.clone();
        self.tasks.spawn("probing the redirect", arrival.run(end));
        self.watch_unreached();
        self.follow_addresses();
        self.clients.ready();
        Ok(())
    }

    /// Other servers' clients are this one's where it has the session.
    fn drain_relayed_clients(&mut self, gone: Arc<Guard>) {
        let callers = self.components.relay_callers.clone();
        let Stops {
            accepting, abort, ..
        } = self.stops();
        self.tasks
            .spawn("draining other servers' clients", async move {
                callers.run(accepting, abort).await;
                drop(gone);
            });
    }

    /// Tells the kernel what to capture, and keeps it told.
    fn capture(
        &mut self,
        set_aside: watch::Receiver<BTreeSet<Family>>,
        probes: watch::Sender<Vec<SocketAddr>>,
    ) -> anyhow::Result<()> {
        let mut table = NodeTable {
            redirect: self.redirect.clone(),
            captures: self.args.redirect,
            snapshots: self.components.platform.snapshots.clone(),
            own_addresses: self.components.own_addresses.clone(),
            surroundings: self.components.surroundings.clone(),
            guards_loopback_ports: self.args.guards_loopback_ports(),
            sessions: self.components.sessions.clone(),
            offline_nodes: self.args.offline_nodes,
            patient_until: self.patient_until,
            tables: TableBuilder::new(self.args.gate_policy),
            in_charge: self.in_charge.subscribe(),
            set_aside,
            probes,
            applied: self.components.readiness.register("table"),
            metrics: self.components.metrics.clone(),
            told: LogDedup::default(),
            services_again_at: None,
            services: ServiceSync::new(
                self.components.services(),
                self.takes_over,
                self.components.applied_services.clone(),
                self.components.metrics.clone(),
            ),
            nodes: Table::default(),
        };
        table.apply().context("cannot apply the table of nodes")?;
        let end = self.shutdown.everything.clone();
        self.tasks
            .spawn("syncing the node table to the kernel", table.run(end));
        Ok(())
    }

    fn follow_addresses(&mut self) {
        let renumbering = Renumbering {
            surroundings: self.components.surroundings.clone(),
            sockets: self.sockets.clients.clone(),
            redirect: self.redirect.clone(),
            clients: self.args.captured_clients(),
            in_charge: self.in_charge.subscribe(),
            condition: self.components.readiness.register("address"),
        };
        let end = self.shutdown.service.clone();
        self.tasks.spawn(
            "moving the listeners with this machine's addresses",
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
        let end = self.shutdown.service.clone();
        self.tasks.spawn(
            "watching for namespaces without a route to the ranges",
            unreached.run(end),
        );
    }

    fn accept_clients(
        &mut self,
        accepting: Accepting,
        arrivals: Arrivals,
        gone: &Arc<Guard>,
    ) -> anyhow::Result<()> {
        let (original_dsts, heartbeat) = {
            let mut redirect = self.redirect.lock();
            self.sockets
                .clients
                .with_listeners(|listeners| redirect.open_gate(listeners))?;
            (redirect.original_destinations(), redirect.heartbeat())
        };
        let transparent = Transparent::new(
            self.sockets.clients.subscribe(),
            AcceptSigns {
                heartbeat: Box::new(move || {
                    if let Err(error) = heartbeat.beat() {
                        tracing::warn!(%error, "cannot show the kernel that this server is alive");
                    }
                }),
                accepting,
            },
            TransparentOptions {
                original_dsts: Arc::new(FromKernel(original_dsts)),
                carrier: self.carrier(),
                arrivals,
                without_original_dst: self.components.metrics.without_original_destination.clone(),
            },
        )?;
        let (stops, gone) = (self.stops(), Arc::clone(gone));
        self.tasks.spawn("accepting clients", async move {
            transparent.run(stops).await;
            drop(gone);
        });
        Ok(())
    }

    /// How every frontend is told to stop.
    pub(super) fn stops(&self) -> Stops {
        Stops {
            accepting: self.shutdown.service.clone(),
            handed_over: self.shutdown.queue.clone(),
            abort: self.shutdown.clients.clone(),
        }
    }

    /// What every frontend carries clients by.
    pub(super) fn carrier(&self) -> Carrier {
        Carrier {
            clients: ClientNetworks {
                networks: self.args.client_networks(),
                own_addresses: OwnAddresses(self.components.own_addresses.clone()),
            },
            dialer: self.dialer(),
            connections: self.components.metrics.connections.clone(),
            clients_refused: self.components.metrics.clients_refused.clone(),
        }
    }

    /// What every frontend reaches nodes by.
    pub(super) fn dialer(&self) -> Dialer {
        Dialer::new(DialerOptions {
            relay: self.components.relay.clone(),
            snapshots: self.components.platform.snapshots.clone(),
            sessions: self.components.sessions.clone(),
            timeout: self.args.session.dial_timeout,
            patient_until: self.patient_until,
            on_no_session: Arc::clone(&self.components.platform.on_no_session),
            metrics: self.components.metrics.dials.clone(),
        })
    }
}

/// Original destinations as the kernel programs noted them.
struct FromKernel(OriginalDestinations);

impl OriginalDsts for FromKernel {
    fn of(&self, accepted: &TcpStream) -> io::Result<Option<OriginalDst>> {
        self.0.of(accepted)
    }
}
