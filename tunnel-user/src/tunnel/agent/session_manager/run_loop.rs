//! The session manager at work: one loop receives every event, [`SessionSet`] decides, tasks dial and carry.

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

use super::SessionManagerOptions;
use crate::{
    model::{ServerAddr, printable_up_to},
    outgoing::{SMALL_SEGMENT, SegmentSize},
    pki::client_validity,
    tunnel::agent::{
        Servers,
        ending::Ending,
        paths::{Paths, Suspicion},
        session::{
            CertificateRefused, NotReached, Reached, Session, SessionEvent, SessionOptions,
            SessionSignals,
        },
        session_set::{SessionId, SessionSet},
    },
    wait::{changed, sleep_until_opt},
};

/// What sessions tell the loop. A full channel delays a session's dials for as long
/// as the loop takes to decide.
const EVENTS: usize = 64;
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
pub(super) struct RunLoop {
    options: SessionManagerOptions,
    servers: Servers,
    session_set: SessionSet,
    paths: Paths,
    dials: JoinSet<Dialled>,
    sessions: JoinSet<Ended>,
    live: HashMap<SessionId, Live>,
    next_session: u64,
    event_tx: mpsc::Sender<(SessionId, SessionEvent)>,
    event_rx: mpsc::Receiver<(SessionId, SessionEvent)>,
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
    session: SessionId,
    server: ServerAddr,
    age: Duration,
    segments: SegmentSize,
    ending: Ending,
}

impl RunLoop {
    pub(super) fn new(
        mut options: SessionManagerOptions,
        servers: Servers,
        shutdown: CancellationToken,
    ) -> Self {
        let now = Instant::now();
        let mut session_set = SessionSet::new(options.most_sessions, now);
        let listed = options.servers.borrow_and_update().clone();
        session_set.list(&listed, now);
        servers.list(&listed);
        let (event_tx, event_rx) = mpsc::channel(EVENTS);
        Self {
            options,
            servers,
            session_set,
            paths: Paths::default(),
            dials: JoinSet::new(),
            sessions: JoinSet::new(),
            live: HashMap::new(),
            next_session: 0,
            event_tx,
            event_rx,
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
                Some(ended) = self.sessions.join_next() => self.handle_ended(ended)?,
                Some((session, event)) = self.event_rx.recv() => self.handle_event(session, event),
                () = sleep_until_opt(again_at) => {}
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
        self.event_rx.close();
        let timed_out = sleep(drain_timeout);
        tokio::pin!(timed_out);
        loop {
            tokio::select! {
                ended = self.sessions.join_next() => match ended {
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
        let step = self.session_set.next(Instant::now());
        self.options
            .metrics
            .servers
            .set(self.session_set.count().into());
        for session in step.drain {
            tracing::info!(
                session = session.0,
                "letting a session go: its address is not listed any more"
            );
            self.servers.leaves(session, true);
            if let Some(live) = self.live.get(&session) {
                live.drain.cancel();
            }
        }
        for session in step.renew {
            tracing::info!(
                session = session.0,
                "the certificate has changed: a new session takes this one's place"
            );
            self.servers.leaves(session, false);
        }
        for server in step.dial {
            let options = self.session_options(&server);
            let (tls, segments) = (Arc::clone(&options.tls), options.segments);
            let establishing = Session::establish(options);
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
        self.session_set.list(&listed, Instant::now());
        self.servers.list(&listed);
    }

    fn handle_new_proof(&mut self) {
        let now = OffsetDateTime::now_utc();
        let ends = self.live.values().filter_map(|live| live.proved_until);
        let left = ends.min().map_or(Duration::MAX, |end| {
            Duration::try_from(end - now).unwrap_or(Duration::ZERO)
        });
        self.session_set.proved_anew(left, Instant::now());
    }

    fn handle_dialled(&mut self, dialled: Dialled) {
        let server = &dialled.server;
        let now = Instant::now();
        match dialled.reached {
            Ok(Reached::Session(session)) => {
                let validity = client_validity(&dialled.tls);
                let proved_until = validity.map(|validity| validity.expires);
                self.begin(server, *session, dialled.segments, proved_until, now);
            }
            Ok(Reached::Held(hello)) => {
                tracing::debug!(%server, server_id = hello.id, "has a session already");
                let held = (hello.id.as_str(), hello.count);
                self.session_set.already_held(server, held, now);
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
                self.session_set.failed(server, now);
            }
        }
    }

    fn begin(
        &mut self,
        server: &ServerAddr,
        session: Session,
        segments: SegmentSize,
        proved_until: Option<OffsetDateTime>,
        now: Instant,
    ) {
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let hello = session.hello();
        tracing::info!(%server, server_id = hello.id, servers = hello.count, "session established");
        if segments == SegmentSize::Small {
            self.explain_small_segments(server);
        }
        let told = (hello.id.as_str(), hello.count);
        let replaced = self.session_set.established(id, server, told, now);
        self.servers.up(id, server, session.info().clone());
        for older in replaced {
            self.servers.leaves(older, true);
        }
        let signals = SessionSignals {
            id,
            drain: self.shutdown.child_token(),
            end: self.end.clone(),
            event_tx: self.event_tx.clone(),
        };
        let live = Live {
            drain: signals.drain.clone(),
            proved_until,
        };
        self.live.insert(id, live);
        let server = server.clone();
        self.sessions.spawn(async move {
            let ending = session.run(&signals).await;
            Ended {
                session: id,
                server,
                age: now.elapsed(),
                segments,
                ending,
            }
        });
    }

    fn handle_ended(&mut self, ended: Result<Ended, JoinError>) -> anyhow::Result<()> {
        let Ended {
            session,
            server,
            age,
            segments,
            ending: Ending { reason, suspicion },
        } = ended.context("keeping a session panicked")?;
        let now = Instant::now();
        tracing::info!(%server, ?age, reason = reason.as_str(), "session ended");
        self.live.remove(&session);
        self.servers.down(session, reason.as_str());
        self.suspect(&server, segments, suspicion, now);
        self.session_set.ended(session, age, now);
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

    fn handle_event(&mut self, session: SessionId, event: SessionEvent) {
        let now = Instant::now();
        match event {
            SessionEvent::Move => {
                tracing::info!(session = session.0, "the server asks for a new session");
                self.servers.leaves(session, false);
                self.session_set.asked_to_move(session, now);
            }
            SessionEvent::UsedUp => {
                tracing::info!(
                    session = session.0,
                    "the session has carried as many connections as one can"
                );
                self.servers.leaves(session, false);
                self.session_set.asked_to_move(session, now);
            }
            SessionEvent::ServerCount(servers) => {
                tracing::debug!(session = session.0, servers, "the servers have changed");
                self.session_set.counted(session, servers, now);
            }
        }
    }

    fn session_options(&mut self, server: &ServerAddr) -> SessionOptions {
        let segments = self.paths.segments(server, Instant::now());
        let options = &self.options;
        let server_name = match &options.server_name {
            Some(name) => name.clone(),
            None => server.server_name().clone(),
        };
        let mut metrics = options.metrics.clone();
        metrics.connections = metrics.connections.of_session();
        SessionOptions {
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
            sessions_with: self.session_set.sessions_with(),
        }
    }
}
