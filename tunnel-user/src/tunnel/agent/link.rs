//! One session, from the agent's side.

mod dials;

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use http::Uri;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Streaming;

use self::dials::Dials;
use super::{LinkInfo, Policy, fleet::LinkId};
use crate::{
    grpc::Channel,
    model::{AgentIdentity, Mark, ServerAddr, printable},
    observability::metrics::AgentMetrics,
    outgoing,
    tunnel::{
        Memory, Settings,
        carry::Meter,
        http2::{
            self, Activity, Patience, ReadAhead, Segments, Watched, WindowSetting, until_silent,
        },
        metadata::{AgentHello, ServerHello, is_certificate_refused},
        wire::{LARGEST_MESSAGE, Packet, agent_service_client},
    },
};

/// Control packets on their way to the server: failed dials, and a drain.
const CONTROL_QUEUE: usize = 256;

/// The longest that a server may take from TLS to registration. Thousands of agents may have come with this one:
/// whoever gives up before it is its turn starts over, and the server has worked in vain.
const REGISTRATION_TIME: Duration = Duration::from_secs(30);
/// The longest wait for the server to take our last bytes.
const FAREWELL_TIME: Duration = Duration::from_secs(30);
/// How a session ends that was asked to drain.
const DRAINED: &str = "drained";

/// What a link needs to know.
#[derive(Clone)]
pub(super) struct LinkOptions {
    pub(super) server: ServerAddr,
    pub(super) server_name: ServerName<'static>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) identity: AgentIdentity,
    pub(super) settings: Settings,
    pub(super) memory: Memory,
    pub(super) policy: Arc<Policy>,
    pub(super) mark: Mark,
    pub(super) metrics: AgentMetrics,
    /// The servers that need no other session.
    pub(super) sessions_with: Vec<String>,
}

/// Where a dial of a server has led.
pub(super) enum Reached {
    /// To a server that has a new session now.
    Session(Box<Link>),
    /// To one that this agent has a session with.
    Held(ServerHello),
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
pub(super) struct Link {
    options: LinkOptions,
    hello: ServerHello,
    info: LinkInfo,
    io: Io,
    requests: SendRequest<Bytes>,
    packets: Streaming<Packet>,
    /// `dials, drain --Packet--> server`
    control_tx: mpsc::Sender<Packet>,
    tasks: TaskTracker,
}

/// What drives the session's bytes.
struct Io {
    connection: Connection<Watched<TlsStream<ReadAhead>>>,
    activity: Activity,
    window: WindowSetting,
}

/// What the keeper of a link tells it, and hears from it.
pub(super) struct LinkSignals {
    pub(super) id: LinkId,
    /// Open no new connections; end with the last.
    pub(super) drain: CancellationToken,
    /// End now.
    pub(super) end: CancellationToken,
    /// `link --what its server says--> keeper`
    pub(super) notice_tx: mpsc::Sender<(LinkId, Notice)>,
}

/// What a server says of servers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Notice {
    /// It asks for another session, with whoever takes its place.
    Move,
    /// There are so many of them, and others than before.
    ServerCount(u32),
}

impl Link {
    /// Connects and registers; every step is bounded in time.
    pub(super) async fn establish(options: LinkOptions) -> anyhow::Result<Reached> {
        let server = options.server.clone();
        let allowed = options.settings.dial_timeout * 2;
        let connecting = outgoing::connect_any(server.host_and_port(), options.mark);
        let stream = match timeout(allowed, connecting).await {
            Ok(connected) => connected.with_context(|| format!("cannot reach server {server}"))?,
            Err(_elapsed) => bail!("no connection to server {server} within {allowed:?}"),
        };
        match timeout(REGISTRATION_TIME, Self::try_establish(options, stream)).await {
            Ok(established) => established,
            Err(_elapsed) => bail!("no session with server {server} within {REGISTRATION_TIME:?}"),
        }
    }

    /// What there is to know of the session.
    pub(super) fn info(&self) -> &LinkInfo {
        &self.info
    }

    /// What the server said of itself.
    pub(super) fn hello(&self) -> &ServerHello {
        &self.hello
    }

    /// Serves the session until it ends, and says why it did. Connections that it still carries
    /// then are reset.
    pub(super) async fn run(self, signals: &LinkSignals) -> &'static str {
        let Self {
            options,
            hello: _,
            io,
            requests,
            packets,
            control_tx,
            tasks,
            info,
        } = self;
        let Io {
            mut connection,
            activity,
            mut window,
        } = io;
        let ping_pong = connection.ping_pong().expect("taken once");
        let patience = Patience::of_agent(&options.settings);
        let server = options.server.clone();
        let carried = TaskTracker::new();
        let dialling = CancellationToken::new();
        let dials = Dials::new(
            options,
            info.meter,
            requests,
            control_tx,
            carried.clone(),
            dialling.clone(),
        );
        let reason = {
            let mut serving = pin!(dials.serve(packets, signals));
            let mut silent = pin!(until_silent(ping_pong, activity, patience));
            loop {
                tokio::select! {
                    closed = &mut connection => match closed {
                        Ok(()) => break "closed by the server",
                        Err(error) => {
                            tracing::debug!(%server, %error, "connection failed");
                            break "connection failed";
                        }
                    },
                    reason = &mut serving => break reason,
                    _ = &mut silent => break "the server fell silent",
                    size = window.due() => {
                        window.tell(size, &connection.set_initial_window_size(size));
                    }
                    () = signals.end.cancelled() => break "ended by this agent",
                }
            }
        };
        if reason == DRAINED {
            // The last bytes of the last connections are still on their way.
            tokio::select! {
                _ = timeout(FAREWELL_TIME, &mut connection) => {}
                () = signals.end.cancelled() => {}
            }
        }
        // Every stream fails with its connection, and resets its target.
        drop(connection);
        dialling.cancel();
        for tracker in [carried, tasks] {
            tracker.close();
            tracker.wait().await;
        }
        reason
    }

    async fn try_establish(options: LinkOptions, stream: TcpStream) -> anyhow::Result<Reached> {
        let server = &options.server;
        let remote = stream.peer_addr()?;
        let stream = TlsConnector::from(Arc::clone(&options.tls))
            .connect(options.server_name.clone(), ReadAhead::new(stream))
            .await
            .with_context(|| format!("TLS with server {server}"))?;
        let segments = Segments::of(stream.get_ref().0.socket(), &options.settings);
        let (stream, activity) = Watched::new(stream, segments);
        let window = WindowSetting::new(&options.memory);
        let (requests, connection) = http2::client(&options.settings, window.told())
            .handshake(stream)
            .await
            .with_context(|| format!("HTTP/2 with server {server}"))?;
        let tasks = TaskTracker::new();
        let mut io = Io {
            connection,
            activity,
            window,
        };
        let registering = register(&options, requests.clone(), tasks.clone());
        let (hello, packets, control_tx) = while_driving(&mut io, registering).await?;
        if hello.held {
            return Ok(Reached::Held(hello));
        }
        let carried = &options.metrics.carried;
        let meter = Meter::new(carried.to_client.clone(), carried.to_target.clone());
        let info = LinkInfo {
            server_id: hello.id.clone(),
            remote,
            since: SystemTime::now(),
            meter: Arc::new(meter),
            connections: options.metrics.connections.clone(),
        };
        Ok(Reached::Session(Box::new(Self {
            options,
            hello,
            info,
            io,
            requests,
            packets,
            control_tx,
            tasks,
        })))
    }
}

/// Opens the control stream and registers what the certificate proves.
async fn register(
    options: &LinkOptions,
    requests: SendRequest<Bytes>,
    tasks: TaskTracker,
) -> anyhow::Result<(ServerHello, Streaming<Packet>, mpsc::Sender<Packet>)> {
    let (control_tx, control_rx) = mpsc::channel(CONTROL_QUEUE);
    let origin = origin(&options.server)?;
    let channel = Channel::new(requests, tasks);
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

/// Nothing moves on an HTTP/2 connection unless somebody polls it.
async fn while_driving<T>(
    io: &mut Io,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::select! {
        biased;
        done = work => done,
        closed = &mut io.connection => match closed {
            Ok(()) => bail!("the server closed the connection"),
            Err(error) => Err(error).context("the connection failed"),
        },
    }
}

fn origin(server: &ServerAddr) -> anyhow::Result<Uri> {
    let origin = Uri::builder().scheme("https").authority(server.to_string());
    origin
        .path_and_query("/")
        .build()
        .context("the server address is no URI authority")
}
