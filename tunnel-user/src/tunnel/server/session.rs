//! One agent's session, as everything else on the server sees it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::peer_identity::PeerIdentity;
use crate::{
    model::{AgentIdentity, NodeName, PeerAddr, Snapshot, Target},
    pki::Validity,
    tunnel::{
        Client, DialError, FirstBytes, Memory, Refusal, Settings, Transfer,
        carry::{Early, LocalEnd, SessionFlow, carry},
        dial::{DialAnswer, PendingDial, PendingDials},
        first_bytes::Waiting,
        memory::ConnectionShare,
        places::{NoPlace, Places},
        transport::http2::OfferedStream,
        wire::{self, Packet},
    },
};

/// Control packets on their way to the agent. A full channel delays the dial that comes next, and
/// that dial's own timeout bounds the delay.
pub(super) const CONTROL_QUEUE: usize = 256;

/// A live session.
pub struct Session {
    proved: PeerIdentity,
    peer: PeerAddr,
    agent_version: String,
    takes_first_bytes: bool,
    first_bytes_waiting: Waiting,
    since: SystemTime,
    established: Instant,
    memory: Memory,
    flow: SessionFlow,
    /// `dials --Packet--> agent`; boxed, since the channel holds room for 32 from the start.
    control_tx: mpsc::Sender<Box<Packet>>,
    dials: PendingDials,
    places: Mutex<Places>,
    superseded: AtomicBool,
    draining: AtomicBool,
    /// Whether what it carries may outlive its certificate, for [`Settings::overtime`]: the
    /// agent has proved itself anew, has been given a newer certificate, or was sent elsewhere by
    /// this server.
    may_finish: AtomicBool,
    expired: AtomicBool,
    ended: CancellationToken,
}

/// What an agent has said of itself.
pub(super) struct AboutAgent {
    pub(super) version: String,
    pub(super) takes_first_bytes: bool,
}

/// What `culvert status` shows of a session.
#[derive(Clone, Debug)]
pub struct SessionReport {
    /// The node.
    pub node: NodeName,
    /// Where the agent's connection comes from: the NAT, usually.
    pub peer: PeerAddr,
    /// The agent's version.
    pub agent_version: String,
    /// When it was established.
    pub since: SystemTime,
    /// Connections open now.
    pub open: u32,
    /// Bytes from clients to the node.
    pub bytes_up: u64,
    /// Bytes from the node to clients.
    pub bytes_down: u64,
    /// A newer session of the node, or a drain, keeps new connections away.
    pub retiring: bool,
}

/// A connection that the agent has dialled and that waits for its client's bytes.
pub struct SessionConnection {
    stream: OfferedStream,
    /// Bytes of its client that went with the dial.
    sent: u64,
    place: Place,
}

/// A dial that the agent works on.
struct Asked<'a> {
    session: &'a Session,
    pending: PendingDial,
}

/// One of the session's places for a connection, pending or open, and its share of memory.
struct Place {
    session: Arc<Session>,
    client: Client,
    share: ConnectionShare,
}

impl Session {
    pub(super) fn new(
        proved: PeerIdentity,
        peer: PeerAddr,
        agent: AboutAgent,
        settings: Settings,
        memory: Memory,
        flow: SessionFlow,
        ended: CancellationToken,
    ) -> (Arc<Self>, mpsc::Receiver<Box<Packet>>) {
        let (control_tx, control_rx) = mpsc::channel(CONTROL_QUEUE);
        let session = Self {
            proved,
            peer,
            agent_version: agent.version,
            takes_first_bytes: agent.takes_first_bytes,
            first_bytes_waiting: Waiting::default(),
            since: SystemTime::now(),
            established: Instant::now(),
            memory,
            flow,
            control_tx,
            dials: PendingDials::default(),
            places: Mutex::new(Places::new(settings.max_connections)),
            superseded: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            may_finish: AtomicBool::new(false),
            expired: AtomicBool::new(false),
            ended,
        };
        (Arc::new(session), control_rx)
    }

    /// Who the agent has proved to be.
    pub fn identity(&self) -> &AgentIdentity {
        &self.proved.identity
    }

    /// Whether the snapshot still admits the agent.
    pub(super) fn still_admitted(&self, snapshot: &Snapshot) -> Result<(), Refusal> {
        self.proved.still_admitted(snapshot)
    }

    pub(super) fn validity(&self) -> Validity {
        self.proved.validity
    }

    /// Where the agent's connection comes from.
    pub fn peer(&self) -> PeerAddr {
        self.peer
    }

    /// How long the session has lasted.
    pub fn age(&self) -> Duration {
        self.established.elapsed()
    }

    /// Figures for `culvert status`.
    pub fn report(&self) -> SessionReport {
        let (bytes_up, bytes_down) = self.flow.counters.read();
        SessionReport {
            node: self.proved.identity.node.clone(),
            peer: self.peer,
            agent_version: self.agent_version.clone(),
            since: self.since,
            open: self.places().taken(),
            bytes_up,
            bytes_down,
            retiring: self.is_retiring(),
        }
    }

    /// Asks the agent to dial, and waits for the stream that carries the connection. Whoever stops
    /// waiting, for whatever reason, takes the dial back.
    pub(super) async fn dial(
        self: &Arc<Self>,
        target: &Target,
        client: Client,
        first: &mut FirstBytes<'_>,
    ) -> Result<SessionConnection, DialError> {
        let place = Place::take(self, client)?;
        if first.would_be_lost() && !self.takes_first_bytes {
            // Another session had read them, and this one's agent would lose them.
            return Err(DialError::SessionEnded(self.proved.identity.node.clone()));
        }
        let bytes = self.first_bytes(first, &place.share).await;
        let sent = bytes.len() as u64;
        let mut asked = Asked {
            session: self,
            pending: self.dials.begin(),
        };
        let answer = tokio::select! {
            biased;
            () = self.ended.cancelled() => None,
            answer = asked.answer(wire::dial(asked.pending.id, target, bytes), first) => answer,
        };
        drop(asked);
        match answer {
            Some(Ok(stream)) => Ok(SessionConnection {
                stream,
                sent,
                place,
            }),
            Some(Err(error)) => Err(DialError::Refused(error)),
            None => Err(DialError::SessionEnded(self.proved.identity.node.clone())),
        }
    }

    /// What goes with the dial, if the agent takes it.
    async fn first_bytes(&self, first: &mut FirstBytes<'_>, share: &ConnectionShare) -> Bytes {
        // Where dials wait already, more than they need would make those behind them late.
        let is_idle = self.control_tx.capacity() == CONTROL_QUEUE;
        if !self.takes_first_bytes || !(is_idle || first.were_read()) {
            return Bytes::new();
        }
        let round_trip = self.flow.round_trip.get();
        if round_trip.is_none() {
            self.flow.round_trip.want();
        }
        first
            .read(share, &self.first_bytes_waiting, round_trip)
            .await
    }

    /// Ends the session and resets what it carries.
    pub fn end(&self) {
        self.ended.cancel();
    }

    /// Whether it has ended, or is about to.
    pub fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Tells the agent to open another session, and to use this one only for what it carries.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.may_finish.store(true, Ordering::Relaxed);
        // A full queue means an agent that does not listen; keepalive deals with that one.
        let _ = self.control_tx.try_send(Box::new(wire::drain()));
    }

    /// The agent is about to leave: others of the node come first.
    pub(super) fn agent_drains(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// A newer session has taken the node over: this one ends with its last connection.
    pub(super) fn supersede(&self, newer: &Self) {
        self.renewed(newer.proved.validity);
        self.end_with_last();
    }

    /// The agent has, or has been given, a certificate of that life: what this session carries is
    /// not cut for the end of an older one.
    pub(super) fn renewed(&self, newer: Validity) {
        if newer.expires > self.proved.validity.expires {
            self.may_finish.store(true, Ordering::Relaxed);
        }
    }

    fn end_with_last(&self) {
        self.superseded.store(true, Ordering::SeqCst);
        if self.places().taken() == 0 {
            self.end();
        }
    }

    /// Its certificate is over: nothing new goes through it. Returns whether what it carries goes on
    /// until it ends by itself; else it is reset.
    pub(super) fn expire(&self) -> bool {
        self.expired.store(true, Ordering::Relaxed);
        let may_finish = self.may_finish.load(Ordering::Relaxed);
        if may_finish {
            self.end_with_last();
        } else {
            self.end();
        }
        may_finish
    }

    pub(super) fn has_expired(&self) -> bool {
        self.expired.load(Ordering::Relaxed)
    }

    pub(super) fn is_retiring(&self) -> bool {
        self.superseded.load(Ordering::Relaxed) || self.draining.load(Ordering::Relaxed)
    }

    pub(super) fn dials(&self) -> &PendingDials {
        &self.dials
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // Places are counted whole between any two operations, whatever panicked meanwhile.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked<'_> {
    async fn answer(&mut self, dial: Packet, first: &mut FirstBytes<'_>) -> Option<DialAnswer> {
        let place = self.session.control_tx.reserve().await.ok()?;
        first.leave();
        place.send(Box::new(dial));
        self.pending.answer().await
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.pending.forget() {
            let taken_back = Box::new(wire::close_dial(self.pending.id));
            // A full queue means an agent that does not listen; keepalive deals with that one.
            let _ = self.session.control_tx.try_send(taken_back);
        }
    }
}

impl SessionConnection {
    /// Carries the client's bytes until both sides have closed, either is reset, or `abort` resets
    /// both.
    pub(in crate::tunnel) async fn carry(
        self,
        client: impl LocalEnd,
        abort: CancellationToken,
    ) -> Transfer {
        let early = Early::Sent(self.sent);
        let Place { session, share, .. } = &self.place;
        match self.stream.accept() {
            Ok(stream) => carry(client, stream, early, &session.flow, share, abort).await,
            Err(error) => {
                client.reset_on_close();
                Transfer {
                    from_socket: self.sent,
                    to_socket: 0,
                    end: Err(error.into()),
                }
            }
        }
    }

    /// The node at its other end.
    pub(in crate::tunnel) fn node(&self) -> &NodeName {
        &self.place.session.identity().node
    }

    pub(in crate::tunnel) fn share(&self) -> &ConnectionShare {
        &self.place.share
    }
}

impl Place {
    fn take(session: &Arc<Session>, client: Client) -> Result<Self, DialError> {
        let share = session.memory.admit(client);
        let share = share.map_err(|refused| DialError::without_memory(refused, client))?;
        let taken = session.places().take(client);
        let node = || session.proved.identity.node.clone();
        taken.map_err(|refused| match refused {
            NoPlace::Full(limit) => DialError::SessionFull {
                node: node(),
                limit,
            },
            NoPlace::ClientFull(limit) => DialError::ClientFull {
                node: node(),
                client,
                limit,
            },
        })?;
        Ok(Self {
            session: Arc::clone(session),
            client,
            share,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = {
            let mut places = self.session.places();
            places.leave(self.client);
            places.taken()
        };
        if left == 0 && self.session.superseded.load(Ordering::SeqCst) {
            self.session.end();
        }
    }
}
