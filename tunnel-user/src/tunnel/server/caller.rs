//! One caller on the agent port: HTTP/2, and what the caller may reach on it.
//!
//! | caller                            | reaches                                     |
//! |-----------------------------------|---------------------------------------------|
//! | without a certificate             | enrolment, for a short while; in a cluster  |
//! |                                   | nothing: its handshake fails                |
//! | an agent's certificate            | the control stream, carrying, renewal       |
//! | a relaying server's certificate   | relayed dials                               |
//! | with any other certificate        | nothing: its handshake fails                |
//!
//! Who has no session has a permit of the [limiter](super::preauth), and leaves when its time is over or
//! its place is taken. Who has one leaves when the certificate is over, unless the agent has a newer
//! one: then what is carried may end by itself, within a day. So it is with a relaying server, which
//! needs no session.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, OptionFuture};
use http::{Request, Response};
use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, body::Body};
use tower_service::Service as _;

use super::{
    control::ControlService,
    ending::Ending,
    listener::ListenerOptions,
    peer_identity::{Proved, RelayIdentity},
};
use crate::{
    model::PeerAddr,
    pki::OnRenewal,
    strangers::Permit,
    tunnel::{
        carry::{ByteCounters, SessionFlow},
        relay::{self, RELAY_PATH, RelayService},
        transport::http2::{
            self, Activity, Call, Lost, Patience, Segments, ServerBuilder, ServerConnection,
            Watched, WindowSetting, until_silent,
        },
        wire::{
            CARRY_PATH, CONNECT_PATH, DIAL_HEADER, DialId, LARGEST_MESSAGE, agent_service_server,
        },
    },
};

/// Answers the gRPC calls that are not the tunnel's own: enrolment and renewal. The request
/// carries the client's address, and its certificate if it has one, in its extensions.
pub type UnaryService =
    Arc<dyn Fn(Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// The longest that a caller without a session may stay.
const UNREGISTERED_TIME: Duration = Duration::from_secs(30);
/// Calls that one caller may make at the same time, and that one without a certificate may make at
/// all; what is not an attack makes one.
const MOST_CALLS: usize = 16;
/// The longest wait for a caller to take our last words, and the last bytes of what was carried.
const GRACEFUL_CLOSE_TIME: Duration = Duration::from_secs(30);

/// Someone who has connected to the agent port.
pub(super) struct Caller {
    pub(super) peer: PeerAddr,
    pub(super) certificate: Option<CertificateDer<'static>>,
    pub(super) proved: Option<Proved>,
}

/// Serves the caller until its session ends, one way or another.
///
/// There are thousands of these, and a future keeps room for whatever it has held: what is needed for a
/// while only is boxed, and no more is captured than that.
pub(super) fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    segments: Segments,
    caller: Caller,
    permit: Permit,
    options: Arc<ListenerOptions>,
    ended: CancellationToken,
) -> impl Future<Output = ()> {
    let serving = Box::new(Serving::new(caller, options, ended));
    let mut overstayed = Box::pin(overstayed(permit, serving.registered.clone()));
    async move {
        let (stream, activity) = Watched::new(stream, segments);
        let window = WindowSetting::new(&serving.options.memory);
        let handshake = serving.http2(&window).handshake(stream);
        let shaken = tokio::select! {
            shaken = Box::pin(async { handshake.await.ok().map(Box::new) }) => shaken,
            () = &mut overstayed => return,
        };
        let Some(mut connection) = shaken else {
            return;
        };
        let ending = serving
            .run(&mut connection, activity, overstayed, window)
            .await;
        serving.leave(ending).await;
        if ending == Ending::EndedHere {
            close_gracefully(connection).await;
        }
    }
}

/// Lets what is still queued (a refusal, a drain, the last bytes carried) reach the caller.
async fn close_gracefully(
    mut connection: Box<ServerConnection<impl AsyncRead + AsyncWrite + Unpin>>,
) {
    connection.graceful_shutdown();
    // A connection that is lost meanwhile goes on to answer with its error.
    let close_gracefully = async { while let Some(Ok(_)) = connection.accept().await {} };
    let _ = timeout(GRACEFUL_CLOSE_TIME, close_gracefully).await;
}

/// What it may do.
enum Role {
    Stranger,
    Agent(Arc<ControlService>),
    Relay(Arc<RelayService>),
}

struct Serving {
    caller: Caller,
    options: Arc<ListenerOptions>,
    role: Role,
    flow: SessionFlow,
    ended: CancellationToken,
    tasks: TaskTracker,
    calls: AtomicUsize,
    /// Cancelled once there is a session.
    registered: CancellationToken,
}

impl Serving {
    fn new(caller: Caller, options: Arc<ListenerOptions>, ended: CancellationToken) -> Self {
        let tasks = TaskTracker::new();
        let registered = CancellationToken::new();
        let flow = SessionFlow::new(&options.settings, options.metrics.counters());
        let role = match caller.proved.clone() {
            None => Role::Stranger,
            Some(Proved::Agent(proved)) => Role::Agent(Arc::new(ControlService {
                proved,
                peer: caller.peer,
                options: Arc::clone(&options),
                flow: flow.clone(),
                session: OnceLock::new(),
                registered: registered.clone(),
                ended: ended.clone(),
                tasks: tasks.clone(),
            })),
            Some(Proved::Relay(RelayIdentity { machine, .. })) => {
                let from = caller.peer.0.ip();
                let callers = &options.relay_callers;
                Role::Relay(Arc::new(RelayService {
                    place: callers.admit(&machine, from, ended.clone()),
                    machine,
                    peer: caller.peer,
                    options: Arc::clone(&options),
                    flow: SessionFlow::new(&options.settings, ByteCounters::unseen()),
                    ended: ended.clone(),
                }))
            }
        };
        Self {
            caller,
            options,
            role,
            flow,
            ended,
            tasks,
            calls: AtomicUsize::new(0),
            registered,
        }
    }

    fn http2(&self, window: &WindowSetting) -> ServerBuilder {
        match self.caller.proved {
            Some(_) => http2::server(&self.options.settings, window.told()),
            None => http2::server_for_strangers(),
        }
    }

    /// Accepts streams until the connection is over, and says why it is.
    async fn run(
        &self,
        connection: &mut ServerConnection<impl AsyncRead + AsyncWrite + Unpin>,
        mut activity: Activity,
        overstayed: Pin<Box<impl Future<Output = ()>>>,
        mut window: WindowSetting,
    ) -> Ending {
        if matches!(self.role, Role::Relay(_)) {
            // It has nothing to register.
            self.registered.cancel();
        }
        let ping_pong = connection.ping_pong().expect("taken once");
        let patience = Patience::of_server(&self.options.settings);
        let round_trip = &self.flow.round_trip;
        let mut silent = pin!(until_silent(ping_pong, &mut activity, patience, round_trip));
        let mut expired = pin!(self.expired_for(Duration::ZERO));
        let mut overdue = pin!(self.expired_for(self.options.settings.overtime));
        let mut overstayed = Some(overstayed);
        let mut is_valid = true;
        loop {
            tokio::select! {
                accepted = connection.accept() => match accepted {
                    Some(Ok((request, respond))) => self.handle(Call::new(request, respond)),
                    Some(Err(error)) => {
                        tracing::debug!(peer = %self.caller.peer, %error, "connection failed");
                        return Ending::ConnectionFailed;
                    }
                    None => return Ending::ClosedByAgent,
                },
                lost = &mut silent => return Ending::Lost(lost),
                _ = OptionFuture::from(overstayed.as_mut()), if overstayed.is_some() => {
                    if !self.has_session() {
                        return Ending::Unregistered;
                    }
                    overstayed = None;
                }
                size = window.due(), if self.caller.proved.is_some() => {
                    window.tell(size, &connection.set_initial_window_size(size));
                }
                () = &mut expired, if is_valid => {
                    is_valid = false;
                    self.expire();
                }
                () = &mut overdue => return Ending::CertificateOver,
                () = self.ended.cancelled() => return Ending::EndedHere,
            }
        }
    }

    /// Nothing is dialled through the session any more, and its name is free.
    async fn leave(&self, ending: Ending) {
        self.ended.cancel();
        // A call that registers a session may be under way until here.
        self.tasks.close();
        self.tasks.wait().await;
        let Role::Agent(control) = &self.role else {
            return;
        };
        let Some(session) = control.session.get() else {
            return;
        };
        self.options.sessions.remove(session);
        if !self.has_session() {
            return;
        }
        let node = &session.identity().node;
        tracing::info!(
            %node, peer = %self.caller.peer, age = ?session.age(), reason = ending.as_str(), "session ended",
        );
        if ending == Ending::Lost(Lost::LargeSegments) {
            tracing::warn!(
                %node, peer = %self.caller.peer,
                "packets of full size seem to be lost on the way to this agent, and nothing says so: the path has a smaller MTU than \
                 its ends. The agent tries small ones next; lower the MTU of its machine's interface, or let the routers' ICMP pass",
            );
        }
    }

    fn calls_too_much(&self) -> bool {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        self.tasks.len() >= MOST_CALLS || (self.caller.proved.is_none() && calls >= MOST_CALLS)
    }

    fn has_session(&self) -> bool {
        self.registered.is_cancelled()
    }

    /// Resolves when the caller's certificate has been over for so long; never without one.
    async fn expired_for(&self, time: Duration) {
        match &self.caller.proved {
            Some(proved) => proved.expired_for(time).await,
            None => std::future::pending().await,
        }
    }

    fn expire(&self) {
        let session = match &self.role {
            Role::Agent(control) => control.session.get(),
            Role::Relay(service) if !service.place.is_newest() => {
                // New dials take the other link.
                return;
            }
            Role::Stranger | Role::Relay(_) => None,
        };
        let Some(session) = session else {
            // It must not get a session any more.
            self.ended.cancel();
            return;
        };
        if !session.expire() {
            let node = &session.identity().node;
            tracing::warn!(%node, peer = %self.caller.peer, "the agent has not renewed its certificate in time");
        }
    }

    fn handle(&self, call: Call) {
        match (call.path(), &self.role) {
            (RELAY_PATH, Role::Relay(service)) => {
                self.tasks.spawn(relay::serve(Arc::clone(service), call));
            }
            (_, Role::Relay(_)) => call.refuse(Status::permission_denied(
                "a server may have connections relayed here, and nothing else",
            )),
            (CARRY_PATH, Role::Agent(control)) => take_up(control, call),
            (CONNECT_PATH, Role::Agent(control)) => {
                let service = agent_service_server::AgentServiceServer::new(Arc::clone(control))
                    .max_decoding_message_size(LARGEST_MESSAGE)
                    .max_encoding_message_size(LARGEST_MESSAGE);
                self.answer(call, move |request| {
                    let mut service = service;
                    Box::pin(async move {
                        let Ok(response) = service.call(request).await;
                        response
                    })
                });
            }
            (CARRY_PATH | CONNECT_PATH, Role::Stranger) => {
                let peer = self.caller.peer;
                tracing::warn!(%peer, "refused a caller without a certificate");
                call.refuse(Status::unauthenticated(
                    "a client certificate is required: an agent gets one by enrolment, or from its cluster",
                ));
            }
            (_, _) if self.calls_too_much() => {
                call.refuse(Status::resource_exhausted("too many calls"));
            }
            (_, _) => {
                let unary = Arc::clone(&self.options.unary);
                self.answer(call, move |request| unary(request));
            }
        }
    }

    /// Runs one gRPC call beside the others.
    fn answer<F>(&self, call: Call, service: F)
    where
        F: FnOnce(Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + 'static,
    {
        let (mut request, responder) = call.into_grpc();
        request.extensions_mut().insert(self.caller.peer);
        if let Some(certificate) = &self.caller.certificate {
            request
                .extensions_mut()
                .insert(crate::pki::ClientCertificate(certificate.clone()));
        }
        let sessions = self.options.sessions.clone();
        let renewed = OnRenewal(Arc::new(move |identity, validity| {
            sessions.renewed(identity, validity);
        }));
        request.extensions_mut().insert(renewed);
        let ended = self.ended.clone();
        // Made here, so that the task has no room for the request.
        let answer = service(request);
        self.tasks.spawn(async move {
            let call = async { responder.send(answer.await).await };
            tokio::select! {
                biased;
                // The graceful close still delivers what this has queued.
                () = ended.cancelled() => {}
                sent = call => if let Err(error) = sent {
                    tracing::debug!(%error, "a call was not answered to its end");
                },
            }
        });
    }
}

/// Resolves when a caller has a session, or has to leave without one.
async fn overstayed(permit: Permit, registered: CancellationToken) {
    tokio::select! {
        () = registered.cancelled() => {}
        () = permit.evicted() => {}
        () = sleep(UNREGISTERED_TIME) => {}
    }
}

/// Hands the agent's stream to the dial that it answers.
fn take_up(control: &ControlService, call: Call) {
    let id = call.header(&DIAL_HEADER).and_then(DialId::from_header);
    let stream = call.into_offer();
    let unwanted = match (id, control.session.get()) {
        (Some(id), Some(session)) => session.dials().answer(id, Ok(stream)).err(),
        (_, _) => Some(Ok(stream)),
    };
    if let Some(Ok(stream)) = unwanted {
        // The client has left, or time ran out.
        stream.decline();
    }
}
