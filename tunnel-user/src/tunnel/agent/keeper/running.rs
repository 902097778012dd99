//! The keeper at work: one loop hears of everything, [`Fleet`] decides, tasks dial and carry.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rustls::ClientConfig;
use time::OffsetDateTime;
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::KeeperOptions;
use crate::{
    model::{ServerAddr, printable_up_to},
    moment::{changed, until},
    outgoing::{SMALL_SEGMENT, SegmentSize},
    pki::client_validity,
    tunnel::agent::{
        Servers,
        ending::Ending,
        fleet::{Fleet, LinkId},
        link::{CertificateRefused, Link, LinkOptions, LinkSignals, NotReached, Notice, Reached},
        paths::{Paths, Suspicion},
    },
};

/// What sessions tell the loop. A full channel delays a session's dials for as long
/// as the loop takes to decide.
const NOTICES: usize = 64;
/// The longest cause of a failure that is shown, with what the server said.
const LONGEST_CAUSE: usize = 1024;

/// Where a dial has led.
struct Dialled {
    server: ServerAddr,
    /// What this agent proved itself with.
    tls: Arc<ClientConfig>,
    segments: SegmentSize,
    reached: Result<Reached, NotReached>,
}

/// Sessions, and dials of servers.
pub(super) struct Running {
    options: KeeperOptions,
    servers: Servers,
    fleet: Fleet,
    paths: Paths,
    dials: JoinSet<Dialled>,
    links: JoinSet<Ended>,
    live: HashMap<LinkId, Live>,
    next_link: u64,
    notice_tx: mpsc::Sender<(LinkId, Notice)>,
    notice_rx: mpsc::Receiver<(LinkId, Notice)>,
    shutdown: CancellationToken,
    end: CancellationToken,
}

/// A session that has not ended.
struct Live {
    /// Lets it end in order.
    drain: CancellationToken,
    /// When the certificate ends that it began with.
    proved_until: Option<OffsetDateTime>,
}

/// How a session ended.
struct Ended {
    link: LinkId,
    server: ServerAddr,
    age: Duration,
    segments: SegmentSize,
    ending: Ending,
}

impl Running {
    pub(super) fn new(
        mut options: KeeperOptions,
        servers: Servers,
        shutdown: CancellationToken,
    ) -> Self {
        let now = Instant::now();
        let mut fleet = Fleet::new(now);
        let listed = options.servers.borrow_and_update().clone();
        fleet.list(&listed, now);
        servers.list(&listed);
        let (notice_tx, notice_rx) = mpsc::channel(NOTICES);
        Self {
            options,
            servers,
            fleet,
            paths: Paths::default(),
            dials: JoinSet::new(),
            links: JoinSet::new(),
            live: HashMap::new(),
            next_link: 0,
            notice_tx,
            notice_rx,
            shutdown,
            end: CancellationToken::new(),
        }
    }

    /// Keeps sessions until the shutdown.
    pub(super) async fn keep(&mut self) -> anyhow::Result<()> {
        let shutdown = self.shutdown.clone();
        loop {
            let again_at = self.act();
            tokio::select! {
                () = changed(&mut self.options.servers) => self.handle_list(),
                () = changed(&mut self.options.tls) => self.handle_new_proof(),
                () = changed(&mut self.options.identity) => self.handle_new_proof(),
                Some(dialled) = self.dials.join_next() => {
                    self.handle_dialled(dialled.context("dialling a server panicked")?);
                }
                Some(ended) = self.links.join_next() => self.handle_ended(ended)?,
                Some((link, notice)) = self.notice_rx.recv() => self.handle_notice(link, notice),
                () = until(again_at) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }

    /// Lets every session end with its last connection, for a while.
    pub(super) async fn finish(
        mut self,
        drain_timeout: Duration,
        abort: &CancellationToken,
    ) -> anyhow::Result<()> {
        self.dials.shutdown().await;
        // Sessions have nobody to tell any more.
        self.notice_rx.close();
        let timed_out = sleep(drain_timeout);
        tokio::pin!(timed_out);
        loop {
            tokio::select! {
                ended = self.links.join_next() => match ended {
                    Some(ended) => self.handle_ended(ended)?,
                    None => return Ok(()),
                },
                () = &mut timed_out, if !self.end.is_cancelled() => {
                    tracing::warn!("connections outlived the drain: resetting them");
                    self.end.cancel();
                }
                () = abort.cancelled(), if !self.end.is_cancelled() => self.end.cancel(),
            }
        }
    }

    /// Does what is to be done now; says when to look again anyway.
    fn act(&mut self) -> Option<Instant> {
        let step = self.fleet.next(Instant::now());
        self.options.metrics.servers.set(self.fleet.count().into());
        for link in step.drain {
            tracing::info!(
                link = link.0,
                "letting a session go: its address is not listed any more"
            );
            self.servers.leaves(link, true);
            if let Some(live) = self.live.get(&link) {
                live.drain.cancel();
            }
        }
        for link in step.renew {
            tracing::info!(
                link = link.0,
                "the certificate has changed: a new session takes this one's place"
            );
            self.servers.leaves(link, false);
        }
        for server in step.dial {
            let options = self.link_options(&server);
            let (tls, segments) = (Arc::clone(&options.tls), options.segments);
            let establishing = Link::establish(options);
            self.dials.spawn(async move {
                Dialled {
                    server,
                    tls,
                    segments,
                    reached: establishing.await,
                }
            });
        }
        step.again_at
    }

    fn handle_list(&mut self) {
        let listed = self.options.servers.borrow_and_update().clone();
        let names: Vec<_> = listed.iter().map(ToString::to_string).collect();
        tracing::info!(servers = ?names, "the addresses of servers have changed");
        self.fleet.list(&listed, Instant::now());
        self.servers.list(&listed);
    }

    fn handle_new_proof(&mut self) {
        let now = OffsetDateTime::now_utc();
        let ends = self.live.values().filter_map(|live| live.proved_until);
        let left = ends.min().map_or(Duration::MAX, |end| {
            Duration::try_from(end - now).unwrap_or(Duration::ZERO)
        });
        self.fleet.proved_anew(left, Instant::now());
    }

    fn handle_dialled(&mut self, dialled: Dialled) {
        let server = &dialled.server;
        let now = Instant::now();
        match dialled.reached {
            Ok(Reached::Session(link)) => {
                let validity = client_validity(&dialled.tls);
                let proved_until = validity.map(|validity| validity.expires);
                self.begin(server, *link, dialled.segments, proved_until, now);
            }
            Ok(Reached::Held(hello)) => {
                tracing::debug!(%server, server_id = hello.id, "has a session already");
                let held = (hello.id.as_str(), hello.count);
                self.fleet.already_held(server, held, now);
                self.servers.is_duplicate(server, hello.id);
            }
            Err(NotReached { error, suspicion }) => {
                self.suspect(server, dialled.segments, suspicion, now);
                if error.is::<CertificateRefused>() {
                    self.options.refused_tx.send_replace(Some(dialled.tls));
                }
                let error = printable_up_to(&format!("{error:#}"), LONGEST_CAUSE);
                if self.servers.failed(server, &error) {
                    tracing::warn!(%server, error, "no session");
                } else {
                    tracing::debug!(%server, error, "no session");
                }
                self.options.metrics.session_failures.inc();
                self.fleet.failed(server, now);
            }
        }
    }

    fn begin(
        &mut self,
        server: &ServerAddr,
        link: Link,
        segments: SegmentSize,
        proved_until: Option<OffsetDateTime>,
        now: Instant,
    ) {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        let hello = link.hello();
        tracing::info!(%server, server_id = hello.id, servers = hello.count, "session established");
        if segments == SegmentSize::Small {
            self.explain_small_segments(server);
        }
        let told = (hello.id.as_str(), hello.count);
        let replaced = self.fleet.established(id, server, told, now);
        self.servers.up(id, server, link.info().clone());
        for older in replaced {
            self.servers.leaves(older, true);
        }
        let signals = LinkSignals {
            id,
            drain: self.shutdown.child_token(),
            end: self.end.clone(),
            notice_tx: self.notice_tx.clone(),
        };
        let live = Live {
            drain: signals.drain.clone(),
            proved_until,
        };
        self.live.insert(id, live);
        let server = server.clone();
        self.links.spawn(async move {
            let ending = link.run(&signals).await;
            Ended {
                link: id,
                server,
                age: now.elapsed(),
                segments,
                ending,
            }
        });
    }

    fn handle_ended(&mut self, ended: Result<Ended, JoinError>) -> anyhow::Result<()> {
        let Ended {
            link,
            server,
            age,
            segments,
            ending: Ending { reason, suspicion },
        } = ended.context("keeping a session panicked")?;
        let now = Instant::now();
        tracing::info!(%server, ?age, reason = reason.as_str(), "session ended");
        self.live.remove(&link);
        self.servers.down(link, reason.as_str());
        self.suspect(&server, segments, suspicion, now);
        self.fleet.ended(link, age, now);
        Ok(())
    }

    fn suspect(
        &mut self,
        server: &ServerAddr,
        segments: SegmentSize,
        suspicion: Option<Suspicion>,
        now: Instant,
    ) {
        if let Some(suspicion) = suspicion {
            tracing::debug!(%server, ?segments, ?suspicion, "large segments may be lost");
            self.paths.suspect(server, segments, suspicion, now);
        }
    }

    fn explain_small_segments(&self, server: &ServerAddr) {
        match self.paths.suspicion(server) {
            Some(Suspicion::Certain) => tracing::warn!(
                %server, segment = SMALL_SEGMENT,
                "packets of full size seem to be lost on the way to this server, and nothing says so: this session uses small \
                 ones. The path has a smaller MTU than its ends: lower that of this machine's interface, or let the routers' ICMP pass",
            ),
            Some(Suspicion::Possible) | None => tracing::info!(
                %server, segment = SMALL_SEGMENT,
                "this session uses small packets: the session or attempt before stood still though the server's machine was \
                 there, as happens where the path loses packets of full size",
            ),
        }
    }

    fn handle_notice(&mut self, link: LinkId, notice: Notice) {
        let now = Instant::now();
        match notice {
            Notice::Move => {
                tracing::info!(link = link.0, "the server asks for a new session");
                self.servers.leaves(link, false);
                self.fleet.asked_to_move(link, now);
            }
            Notice::UsedUp => {
                tracing::info!(
                    link = link.0,
                    "the session has carried as many connections as one can"
                );
                self.servers.leaves(link, false);
                self.fleet.asked_to_move(link, now);
            }
            Notice::ServerCount(servers) => {
                tracing::debug!(link = link.0, servers, "the servers have changed");
                self.fleet.counted(link, servers, now);
            }
        }
    }

    fn link_options(&mut self, server: &ServerAddr) -> LinkOptions {
        let segments = self.paths.segments(server, Instant::now());
        let options = &self.options;
        let server_name = match &options.server_name {
            Some(name) => name.clone(),
            None => server.server_name().clone(),
        };
        let mut metrics = options.metrics.clone();
        metrics.connections = metrics.connections.of_session();
        LinkOptions {
            server: server.clone(),
            server_name,
            tls: Arc::clone(&options.tls.borrow()),
            identity: options.identity.borrow().clone(),
            settings: options.settings,
            memory: options.memory.clone(),
            policy: Arc::clone(&options.policy),
            mark: options.mark,
            segments,
            metrics,
            sessions_with: self.fleet.sessions_with(),
        }
    }
}
