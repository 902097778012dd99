//! The control stream: an agent registers on it, and dials go over it.

use std::{
    future::ready,
    sync::{Arc, OnceLock},
};

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use super::{ListenerOptions, Session, peer_identity::PeerIdentity, session::AboutAgent};
use crate::{
    model::{AgentIdentity, PeerAddr},
    tunnel::{
        Refusal,
        carry::SessionFlow,
        metadata::{AgentHello, ServerHello, refuse_certificate},
        registration::admit,
        wire::{self, Control, Packet, agent_service_server::AgentService},
    },
};

/// What a connection of a proved agent may register, and with whom.
pub(super) struct ControlService {
    pub(super) proved: PeerIdentity,
    pub(super) peer: PeerAddr,
    pub(super) options: Arc<ListenerOptions>,
    pub(super) flow: SessionFlow,
    /// The one session of this connection, once it is registered.
    pub(super) session: OnceLock<Arc<Session>>,
    /// Cancelled once there is one that counts.
    pub(super) registered: CancellationToken,
    pub(super) ended: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl ControlService {
    /// Lets the agent in, or says why not, to it and to the log.
    fn admit(&self, hello: &AgentHello) -> Result<AgentIdentity, Status> {
        let node = &self.proved.identity.node;
        let admitted = admit(
            hello,
            &self.proved.identity,
            self.proved.validity.issued,
            &self.options.snapshots.borrow(),
        );
        let registered = admitted.map_err(|refusal| self.refuse(&refusal))?;
        if !hello.native {
            tracing::warn!(%node, peer = %self.peer, "the agent does not speak culvert's protocol");
            return Err(Status::failed_precondition(
                "this server carries connections of culvert's agents only: run `culvert agent`",
            ));
        }
        Ok(registered)
    }

    /// Whether the agent and this server agree that they have a session already. An agent that
    /// believes so alone gets another one.
    fn is_held(&self, hello: &AgentHello) -> bool {
        hello.sessions_with.contains(&self.options.server_id)
            && self.options.sessions.holds(&self.proved.identity)
    }

    fn register(
        &self,
        registered: AgentIdentity,
        hello: AgentHello,
    ) -> Result<mpsc::Receiver<Box<Packet>>, Status> {
        let node = &self.proved.identity.node;
        let (session, control_rx) = Session::new(
            PeerIdentity {
                identity: registered,
                validity: self.proved.validity,
            },
            self.peer,
            AboutAgent {
                version: hello.version,
                takes_first_bytes: hello.takes_first_bytes,
            },
            self.options.settings,
            self.options.memory.clone(),
            self.flow.clone(),
            self.ended.clone(),
        );
        if self.session.set(Arc::clone(&session)).is_err() {
            return Err(Status::already_exists(
                "this connection has a session already",
            ));
        }
        self.options
            .sessions
            .register(&session)
            .map_err(|refusal| self.refuse(&refusal))?;
        // The snapshot may have changed while it was registered: whoever follows changes has then
        // looked through the sessions already.
        if let Err(refusal) = self.proved.still_admitted(&self.options.snapshots.borrow()) {
            session.end();
            return Err(self.refuse(&refusal));
        }
        self.registered.cancel();
        tracing::info!(%node, peer = %self.peer, "session established");
        Ok(control_rx)
    }

    fn hello(&self, count: u32, held: bool) -> ServerHello {
        ServerHello {
            id: self.options.server_id.clone(),
            count,
            native: true,
            held,
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Status {
        let node = &self.proved.identity.node;
        tracing::warn!(%node, peer = %self.peer, reason = %refusal, "refused an agent");
        self.options.metrics.sessions_refused.inc();
        let mut status = Status::permission_denied(refusal.to_string());
        if refusal.is_of_certificate() {
            refuse_certificate(status.metadata_mut());
        }
        status
    }
}

type PacketsToAgent = BoxStream<'static, Result<Packet, Status>>;

#[tonic::async_trait]
impl AgentService for Arc<ControlService> {
    type ConnectStream = PacketsToAgent;

    async fn connect(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<PacketsToAgent>, Status> {
        let hello = AgentHello::read(request.metadata())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let identity = self.admit(&hello)?;
        // Whatever changes from here on is sent after the hello.
        let mut server_count = self.options.server_count.clone();
        let count = *server_count.borrow_and_update();
        if self.is_held(&hello) {
            let mut response = Response::new(stream::empty().boxed());
            self.hello(count, true).write(response.metadata_mut());
            return Ok(response);
        }
        let control_rx = self.register(identity, hello)?;
        let counts = WatchStream::from_changes(server_count).map(wire::server_count);
        // A client that has left while its dial waited here is not dialled for, nor is what it said sent.
        let session = self.session.get().map(Arc::clone);
        let control = ReceiverStream::new(control_rx).filter_map(move |packet| {
            let is_of_use = |id| session.as_ref().is_none_or(|s| s.dials().is_pending(id));
            ready(
                wire::dial_of(&packet)
                    .is_none_or(is_of_use)
                    .then_some(*packet),
            )
        });
        let packets = stream::select(control, counts);
        let mut response = Response::new(packets.map(Ok).boxed());
        self.hello(count, false).write(response.metadata_mut());
        let service = Self::clone(self);
        self.tasks
            .spawn(async move { service.read(request.into_inner()).await });
        Ok(response)
    }
}

impl ControlService {
    /// Reads the agent's packets until the stream ends, and the session with it.
    async fn read(&self, mut packets: Streaming<Packet>) {
        let Some(session) = self.session.get() else {
            return;
        };
        loop {
            let packet = tokio::select! {
                packet = packets.message() => packet,
                () = self.ended.cancelled() => break,
            };
            match packet {
                Ok(Some(packet)) => handle(session, packet.into()),
                Ok(None) => break,
                Err(status) => {
                    tracing::debug!(node = %self.proved.identity.node, %status, "control stream failed");
                    break;
                }
            }
        }
        self.ended.cancel();
    }
}

fn handle(session: &Session, packet: Control) {
    match packet {
        Control::DialFailed { id, error } => {
            // Nobody waits any more for what nobody takes.
            let _ = session.dials().answer(id, Err(error));
        }
        Control::Drain => session.agent_drains(),
        Control::Dial { .. }
        | Control::CloseDial { .. }
        | Control::ServerCount(_)
        | Control::Other => {}
    }
}
