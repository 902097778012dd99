//! One session, from the agent's side.

mod dials;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, anyhow, bail};
use http::Uri;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Streaming;

use self::dials::Dials;
use super::{
    Policy, SessionInfo,
    ending::{EndReason, Ending},
    paths::Suspicion,
    session_set::SessionId,
};
use crate::{
    model::{AgentIdentity, Mark, ServerAddr, printable},
    observability::metrics::AgentMetrics,
    outgoing::{self, SegmentSize},
    tunnel::{
        Memory, Settings,
        carry::ByteCounters,
        client_io::{ClientIo, ClientIoOptions},
        grpc::Channel,
        metadata::{AgentHello, ServerHello, is_certificate_refused},
        transport::http2::{Lost, Opener, Patience, Segments, SharedSocket},
        wire::{LARGEST_MESSAGE, Packet, agent_service_client},
    },
};

/// Control packets on their way to the server: failed dials, and a drain.
const CONTROL_QUEUE: usize = 256;

/// The longest that a server may take from TLS to registration. Thousands of agents may have come with this one:
/// whoever gives up before it is its turn starts over, and the server has worked in vain.
const REGISTRATION_TIME: Duration = Duration::from_secs(30);
/// A server that takes a connection and then says nothing for so long may wait for segments that were lost, or have
/// sent some.
const LATE: Duration = Duration::from_secs(5);
/// The longest wait for the server to take our last bytes.
const GRACEFUL_CLOSE_TIME: Duration = Duration::from_secs(30);

/// What a session needs to know.
#[derive(Clone)]
pub(super) struct SessionOptions {
    pub(super) server: ServerAddr,
    pub(super) server_name: ServerName<'static>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) identity: AgentIdentity,
    pub(super) settings: Settings,
    pub(super) memory: Memory,
    pub(super) policy: Arc<Policy>,
    pub(super) mark: Mark,
    pub(super) segments: SegmentSize,
    pub(super) metrics: AgentMetrics,
    /// The servers that need no other session.
    pub(super) sessions_with: Vec<String>,
}

/// Where a dial of a server has led.
pub(super) enum Reached {
    /// To a server that has a new session now.
    Session(Box<Session>),
    /// To one that this agent has a session with.
    Held(ServerHello),
}

/// An attempt that has led nowhere.
pub(super) struct NotReached {
    pub(super) error: anyhow::Error,
    pub(super) suspicion: Option<Suspicion>,
}

/// A server that does not take this agent.
#[derive(Debug, thiserror::Error)]
#[error("server {server} refused: {reason}")]
struct Refused {
    server: ServerAddr,
    reason: String,
}

/// A server that would take this agent with a newer certificate.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct CertificateRefused(Refused);

/// An established session.
pub(super) struct Session {
    options: SessionOptions,
    hello: ServerHello,
    info: SessionInfo,
    io: ClientIo,
    opener: Opener,
    packets: Streaming<Packet>,
    /// `dials, drain --Packet--> server`
    control_tx: mpsc::Sender<Packet>,
    tasks: TaskTracker,
}

/// What the manager of a session tells it, and hears from it.
pub(super) struct SessionSignals {
    pub(super) id: SessionId,
    /// Open no new connections; end with the last.
    pub(super) drain: CancellationToken,
    /// End now.
    pub(super) end: CancellationToken,
    /// `session --events--> session manager`
    pub(super) event_tx: mpsc::Sender<(SessionId, SessionEvent)>,
}

/// What the session manager should know of a session.
#[derive(Clone, Copy, Debug)]
pub(super) enum SessionEvent {
    /// The server asks for another session, with whoever takes its place.
    Move,
    /// There will be no more numbers for the connections of this session.
    UsedUp,
    /// The server says that there are so many servers, and others than before.
    ServerCount(u32),
}

impl Session {
    /// Connects and registers; every step is bounded in time.
    pub(super) async fn establish(options: SessionOptions) -> Result<Reached, NotReached> {
        let stream = Self::connect(&options).await.map_err(|error| NotReached {
            error,
            suspicion: None,
        })?;
        let (server, connected) = (options.server.clone(), Instant::now());
        let socket = SharedSocket::new(stream);
        let segments = Segments::of(socket.share(), &options.settings);
        let establishing = Self::try_establish(options, socket, segments.clone());
        let error = match timeout(REGISTRATION_TIME, establishing).await {
            Ok(Ok(reached)) => return Ok(reached),
            Ok(Err(error)) => error,
            Err(_elapsed) => {
                anyhow!("no session with server {server} within {REGISTRATION_TIME:?}")
            }
        };
        let late = connected.elapsed() >= LATE && segments.has_heard_nothing();
        Err(NotReached {
            error,
            suspicion: (late || segments.was_sent_in_vain()).then_some(Suspicion::Possible),
        })
    }

    async fn connect(options: &SessionOptions) -> anyhow::Result<TcpStream> {
        let server = &options.server;
        let allowed = options.settings.dial_timeout * 2;
        let connecting =
            outgoing::connect_any(server.host_and_port(), options.mark, options.segments);
        match timeout(allowed, connecting).await {
            Ok(connected) => connected.with_context(|| format!("cannot reach server {server}")),
            Err(_elapsed) => bail!("no connection to server {server} within {allowed:?}"),
        }
    }

    /// What there is to know of the session.
    pub(super) fn info(&self) -> &SessionInfo {
        &self.info
    }

    /// What the server said of itself.
    pub(super) fn hello(&self) -> &ServerHello {
        &self.hello
    }

    /// Serves the session until it ends, and says why it did. Connections that it still carries
    /// then are reset.
    pub(super) async fn run(self, signals: &SessionSignals) -> Ending {
        let Self {
            options,
            hello: _,
            mut io,
            opener,
            packets,
            control_tx,
            tasks,
            info: _,
        } = self;
        let patience = Patience::of_agent(&options.settings);
        let carried = TaskTracker::new();
        let dialling = CancellationToken::new();
        let server = options.server.clone();
        let dials = Dials::new(
            options,
            io.flow.clone(),
            opener,
            control_tx,
            carried.clone(),
            dialling.clone(),
        );
        let serving = dials.serve(packets, signals);
        let reason = io.drive(serving, patience, &signals.end, &server).await;
        let suspicion = match reason {
            EndReason::Lost(Lost::LargeSegments) => Some(Suspicion::Certain),
            _ => io
                .activity
                .is_stuck(patience)
                .then_some(Suspicion::Possible),
        };
        if reason == EndReason::Drained {
            // The last bytes of the last connections are still on their way.
            tokio::select! {
                _ = timeout(GRACEFUL_CLOSE_TIME, &mut io.connection) => {}
                () = signals.end.cancelled() => {}
            }
        }
        // Every stream fails with its connection, and resets its target.
        drop(io);
        dialling.cancel();
        for tracker in [carried, tasks] {
            tracker.close();
            tracker.wait().await;
        }
        Ending { reason, suspicion }
    }

    async fn try_establish(
        options: SessionOptions,
        socket: SharedSocket,
        segments: Segments,
    ) -> anyhow::Result<Reached> {
        let carried = &options.metrics.carried;
        let opening = ClientIo::open(
            ClientIoOptions {
                server: &options.server,
                server_name: options.server_name.clone(),
                tls: Arc::clone(&options.tls),
                settings: &options.settings,
                memory: &options.memory,
                counters: ByteCounters::new(carried.to_client.clone(), carried.to_target.clone()),
            },
            socket,
            segments,
        );
        let (opener, mut io, remote) = opening.await?;
        let tasks = TaskTracker::new();
        let registering = register(&options, opener.channel(tasks.clone()));
        let (hello, packets, control_tx) = io.while_driving(registering).await?;
        if hello.held {
            return Ok(Reached::Held(hello));
        }
        let info = SessionInfo {
            server_id: hello.id.clone(),
            remote,
            since: SystemTime::now(),
            counters: Arc::clone(&io.flow.counters),
            connections: options.metrics.connections.clone(),
        };
        Ok(Reached::Session(Box::new(Self {
            options,
            hello,
            info,
            io,
            opener,
            packets,
            control_tx,
            tasks,
        })))
    }
}

/// Opens the control stream and registers what the certificate proves.
async fn register(
    options: &SessionOptions,
    channel: Channel,
) -> anyhow::Result<(ServerHello, Streaming<Packet>, mpsc::Sender<Packet>)> {
    let (control_tx, control_rx) = mpsc::channel(CONTROL_QUEUE);
    let origin = origin(&options.server)?;
    let mut client = agent_service_client::AgentServiceClient::with_origin(channel, origin)
        .max_decoding_message_size(LARGEST_MESSAGE)
        .max_encoding_message_size(LARGEST_MESSAGE);
    let mut request = tonic::Request::new(ReceiverStream::new(control_rx));
    let hello = AgentHello::of(&options.identity, options.sessions_with.clone());
    hello.write(request.metadata_mut());
    let response = client.connect(request).await.map_err(|status| {
        let refused = Refused {
            server: options.server.clone(),
            reason: printable(status.message()),
        };
        if is_certificate_refused(status.metadata()) {
            anyhow!(CertificateRefused(refused))
        } else {
            anyhow!(refused)
        }
    })?;
    let hello = ServerHello::read(response.metadata())
        .with_context(|| format!("server {} is not a tunnel server", options.server))?;
    if !hello.native {
        bail!(
            "server {} does not speak culvert's protocol: point --server at a culvert server",
            options.server
        );
    }
    Ok((hello, response.into_inner(), control_tx))
}

fn origin(server: &ServerAddr) -> anyhow::Result<Uri> {
    let origin = Uri::builder().scheme("https").authority(server.to_string());
    origin
        .path_and_query("/")
        .build()
        .context("the server address is no URI authority")
}
