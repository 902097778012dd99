//! An agent whose frames a test writes itself.

use bytes::Bytes;
use h2::{
    SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{Method, Request};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;

use super::*;
use crate::{
    model::{NodeName, Target},
    pki::SERVER_NAME,
    tunnel::{
        Client, FirstBytes, Transfer,
        grpc::Channel,
        metadata::AgentHello,
        testing::{LIFE, identity},
        transport::http2::{ReadAhead, SharedSocket},
        wire::{CARRY_PATH, Control, DIAL_HEADER, DialId, Packet, agent_service_client},
    },
};

/// An agent that does not look at what it dials.
pub(super) struct RawAgent {
    requests: SendRequest<Bytes>,
    packets: Streaming<Packet>,
    _control_tx: mpsc::Sender<Packet>,
    _driving: AbortOnDropHandle<()>,
}

/// A client whose connection that agent has answered.
pub(super) struct RawConnection {
    pub(super) client: TcpStream,
    pub(super) from_agent: SendStream<Bytes>,
    pub(super) carrying: AbortOnDropHandle<Transfer>,
}

impl RawAgent {
    pub(super) async fn of(server: &TestServer) -> Self {
        Self::that_says(server, |_| {}).await
    }

    /// One that does not say of itself quite what ours does.
    pub(super) async fn that_says(server: &TestServer, say: impl FnOnce(&mut AgentHello)) -> Self {
        let identity = identity("edge-1", "k");
        let stream = TcpStream::connect(server.address).await.unwrap();
        let name = SERVER_NAME.try_into().unwrap();
        let socket = ReadAhead::new(SharedSocket::new(stream));
        let connecting = TlsConnector::from(server.proof(&identity, LIFE));
        let stream = connecting.connect(name, socket).await.unwrap();
        let mut builder = h2::client::Builder::new();
        let shaken = builder.max_send_buffer_size(1024).handshake(stream).await;
        let (requests, connection) = shaken.unwrap();
        // How it ends is seen by those who use it.
        let driving = tokio::spawn(async { drop(connection.await) });
        let channel = Channel::new(requests.clone(), TaskTracker::new());
        let origin = "https://server/".parse().unwrap();
        let mut client = agent_service_client::AgentServiceClient::with_origin(channel, origin);
        let (control_tx, control_rx) = mpsc::channel(1);
        let mut request = tonic::Request::new(ReceiverStream::new(control_rx));
        let mut hello = AgentHello::of(&identity, Vec::new());
        say(&mut hello);
        hello.write(request.metadata_mut());
        let packets = client.connect(request).await.unwrap().into_inner();
        server.until_session("edge-1").await;
        Self {
            requests,
            packets,
            _control_tx: control_tx,
            _driving: AbortOnDropHandle::new(driving),
        }
    }

    /// The next dial, and what comes with it.
    pub(super) async fn next_dial(&mut self) -> (DialId, Bytes) {
        loop {
            let packet = patiently(self.packets.message()).await.unwrap().unwrap();
            if let Control::Dial { id, first, .. } = packet.into() {
                return (id, first);
            }
        }
    }

    /// Answers a dial with a stream.
    pub(super) async fn open(&self, id: DialId) -> (ResponseFuture, SendStream<Bytes>) {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("https://server{CARRY_PATH}"))
            .header(DIAL_HEADER, id.to_header())
            .body(())
            .unwrap();
        let mut requests = self.requests.clone().ready().await.unwrap();
        requests.send_request(request, false).unwrap()
    }

    /// A client that has been carried and does not read. The kernel keeps little of what it does not.
    pub(super) async fn connect(&mut self, server: &TestServer) -> RawConnection {
        let mut first = FirstBytes::default();
        let answering = async {
            let (id, _) = self.next_dial().await;
            self.open(id).await.1
        };
        let (dialled, from_agent) = tokio::join!(dial(server, &mut first), answering);
        let (client, accepted) = tcp_pair().await;
        for (socket, buffer) in [(&client, 4096), (&accepted, 4096)] {
            let socket = socket2::SockRef::from(socket);
            socket.set_recv_buffer_size(buffer).unwrap();
            socket.set_send_buffer_size(buffer).unwrap();
        }
        let never = tokio_util::sync::CancellationToken::new();
        let carrying = tokio::spawn(dialled.unwrap().carry(accepted, never));
        RawConnection {
            client,
            from_agent,
            carrying: AbortOnDropHandle::new(carrying),
        }
    }
}

/// Dials something on the node of that agent.
pub(super) async fn dial(
    server: &TestServer,
    first: &mut FirstBytes<'_>,
) -> Result<crate::tunnel::server::SessionConnection, DialError> {
    let (node, target): (NodeName, Target) = (
        "edge-1".parse().unwrap(),
        "127.0.0.1:10250".parse::<SocketAddr>().unwrap().into(),
    );
    let allowed = server.settings.dial_timeout;
    let machine = Client::Machine;
    let dialling = server
        .sessions
        .dial(&node, &target, machine, first, Duration::ZERO);
    let timed_out = |_elapsed| Err(DialError::TimedOut(allowed));
    timeout(allowed, dialling).await.unwrap_or_else(timed_out)
}
