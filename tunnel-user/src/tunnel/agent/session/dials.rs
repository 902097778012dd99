//! The dials of one session, and the connections that come of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::{net::TcpStream, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Streaming;

use super::{SessionEvent, SessionOptions, SessionSignals};
use crate::{
    observability::metrics::{DialFailure, Outcome},
    tunnel::{
        Client,
        agent::{dialer, ending::EndReason},
        answer::{OUT_OF_MEMORY, SESSION_FULL},
        carry::{self, Backlog, Early, SessionFlow, carry},
        memory::ConnectionShare,
        places::NoPlace,
        transport::http2::Opener,
        wire::{self, Control, DialId, Packet},
    },
};

/// Connections above the limit that are let be: the server, which keeps to the limit, sees one end a
/// moment before its task here has.
const ENDING: usize = 64;

/// Serves what the server asks for on the control stream.
pub(super) struct Dials {
    options: Arc<SessionOptions>,
    flow: SessionFlow,
    opener: Opener,
    /// `dials, drain --Packet--> server`
    control_tx: mpsc::Sender<Packet>,
    pending: Pending,
    carried: TaskTracker,
    dialling: CancellationToken,
    /// Cancelled when the numbers of streams come to an end.
    used_up: CancellationToken,
}

/// Dials that the server may still take back.
#[derive(Clone, Default)]
struct Pending(Arc<Mutex<HashMap<DialId, CancellationToken>>>);

/// One dial, and the connection if it succeeds.
struct Dial {
    id: DialId,
    share: ConnectionShare,
    /// What the client has said already.
    arrived: Backlog,
    address: String,
    options: Arc<SessionOptions>,
    flow: SessionFlow,
    opener: Opener,
    control_tx: mpsc::Sender<Packet>,
    used_up: CancellationToken,
}

impl Dials {
    pub(super) fn new(
        options: SessionOptions,
        flow: SessionFlow,
        opener: Opener,
        control_tx: mpsc::Sender<Packet>,
        carried: TaskTracker,
        dialling: CancellationToken,
    ) -> Self {
        Self {
            options: Arc::new(options),
            flow,
            opener,
            control_tx,
            pending: Pending::default(),
            carried,
            dialling,
            used_up: CancellationToken::new(),
        }
    }

    /// Handles packets until the server stops sending them, or the last connection of a draining
    /// session has ended.
    pub(super) async fn serve(
        self,
        mut packets: Streaming<Packet>,
        signals: &SessionSignals,
    ) -> EndReason {
        let mut draining = false;
        let mut is_told = false;
        loop {
            tokio::select! {
                packet = packets.message() => match packet {
                    Ok(Some(packet)) => self.handle(packet.into(), signals).await,
                    Ok(None) => return EndReason::ClosedByServer,
                    Err(status) => {
                        let server = &self.options.server;
                        tracing::debug!(%server, %status, "control stream failed");
                        return EndReason::ControlFailed;
                    }
                },
                () = signals.drain.cancelled(), if !draining => {
                    draining = true;
                    self.carried.close();
                    // With a full queue the server finds out from the failing dials.
                    let _ = self.control_tx.try_send(wire::drain());
                }
                () = self.used_up.cancelled(), if !is_told => {
                    is_told = true;
                    notify(signals, SessionEvent::UsedUp).await;
                }
                () = self.carried.wait(), if draining => return EndReason::Drained,
            }
        }
    }

    async fn handle(&self, packet: Control, signals: &SessionSignals) {
        let event = match packet {
            Control::Dial { id, address, first } => return self.begin(id, address, &first),
            Control::CloseDial { id } => return self.pending.take_back(id),
            Control::Drain => SessionEvent::Move,
            Control::ServerCount(count) => SessionEvent::ServerCount(count),
            Control::DialFailed { .. } | Control::Other => return,
        };
        notify(signals, event).await;
    }

    fn begin(&self, id: DialId, address: String, first: &[u8]) {
        let limit = self.options.settings.max_connections as usize;
        if self.carried.len() >= limit + ENDING {
            let error = format!("the agent carries {limit} {SESSION_FULL}");
            return self.refuse(id, error, DialFailure::SessionFull);
        }
        // A server is one client among its like, whoever its clients are.
        let share = match self.options.memory.admit(Client::Machine) {
            Ok(share) => share,
            Err(NoPlace::Full(limit) | NoPlace::ClientFull(limit)) => {
                let error = format!("the agent carries {limit} connections, {OUT_OF_MEMORY}");
                return self.refuse(id, error, DialFailure::Exhausted);
            }
        };
        let mut arrived = Backlog::new(share.received());
        if arrived.push(first, share.window()).is_err() {
            let error = format!("the agent holds {OUT_OF_MEMORY}");
            return self.refuse(id, error, DialFailure::Exhausted);
        }
        let dial = Dial {
            id,
            share,
            arrived,
            address,
            options: Arc::clone(&self.options),
            flow: self.flow.clone(),
            opener: self.opener.clone(),
            control_tx: self.control_tx.clone(),
            used_up: self.used_up.clone(),
        };
        let taken_back = self.dialling.child_token();
        let pending = self.pending.clone();
        pending.lock().insert(id, taken_back.clone());
        self.carried.spawn(async move {
            let dialled = tokio::select! {
                dialled = dial.dial() => dialled,
                () = taken_back.cancelled() => None,
            };
            pending.lock().remove(&id);
            if let Some(target) = dialled {
                dial.carry(target).await;
            }
        });
    }

    fn refuse(&self, id: DialId, error: String, cause: DialFailure) {
        let server = &self.options.server;
        tracing::debug!(%server, %error, "refused a dial");
        self.options.metrics.dials.failed(cause);
        // A server that floods is not waited for; its dial times out.
        let _ = self.control_tx.try_send(wire::dial_failed(id, error));
    }
}

async fn notify(signals: &SessionSignals, event: SessionEvent) {
    // A manager that only waits for the end has no use for it.
    let _ = signals.event_tx.send((signals.id, event)).await;
}

impl Pending {
    fn take_back(&self, id: DialId) {
        if let Some(taken_back) = self.lock().remove(&id) {
            taken_back.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DialId, CancellationToken>> {
        // The map is whole between any two of its operations, whatever panicked meanwhile.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dial {
    /// Connects to the target, or tells the server why not.
    async fn dial(&self) -> Option<TcpStream> {
        let started = Instant::now();
        let SessionOptions {
            policy,
            settings,
            server,
            metrics,
            mark,
            ..
        } = &*self.options;
        match dialer::dial(&self.address, policy, *mark, settings.dial_timeout).await {
            Ok(target) => {
                metrics.dials.succeeded(started.elapsed());
                Some(target)
            }
            Err(error) => {
                metrics.dials.failed(error.failure());
                tracing::info!(
                    target_address = %self.address, %server, duration = ?started.elapsed(), %error,
                    "cannot dial",
                );
                // Without a control stream there is no session, and the server knows.
                let _ = self
                    .control_tx
                    .send(wire::dial_failed(self.id, error.to_string()))
                    .await;
                None
            }
        }
    }

    /// Opens the stream that answers the dial, and carries the target's bytes through it.
    async fn carry(self, target: TcpStream) {
        let Self {
            id,
            share,
            arrived,
            address,
            options,
            flow,
            opener,
            control_tx: _,
            used_up,
        } = self;
        let counted = options.metrics.connections.open();
        let stream = match opener.answer(id, &options.server).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(target_address = %address, %error, "cannot open a stream");
                carry::reset(&target);
                return counted.end(Outcome::SessionLost);
            }
        };
        if stream.send.number() >= options.settings.last_stream {
            used_up.cancel();
        }
        // The session's end aborts what it carries.
        let never = CancellationToken::new();
        let transfer = carry(
            target,
            stream,
            Early::Arrived(arrived),
            &flow,
            &share,
            never,
        )
        .await;
        tracing::debug!(
            target_address = %address, from_target = transfer.from_socket,
            to_target = transfer.to_socket, end = ?transfer.end, "connection ended",
        );
        counted.end(Outcome::from(&transfer));
    }
}
