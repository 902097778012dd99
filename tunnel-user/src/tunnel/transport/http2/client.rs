//! The end of a session's HTTP/2 that opens the streams: the agent's, and that of a server which relays.

use bytes::Bytes;
use h2::{
    SendStream,
    client::{Connection, ResponseFuture, SendRequest},
};
use http::{Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;

use super::{client_builder, grpc::Channel};
use crate::{
    model::ServerAddr,
    tunnel::{
        Settings,
        transport::{Stream, StreamError},
        wire::{CARRY_PATH, DIAL_HEADER, DialId},
    },
};

/// Moves the bytes of a session, as long as it is polled.
pub(crate) type ClientConnection<S> = Connection<S, Bytes>;

/// Opens streams to the server of one session. Clones share the session.
#[derive(Clone)]
pub(crate) struct Opener(SendRequest<Bytes>);

/// A stream that the peer has not answered yet. Dropping it takes it back.
pub(crate) struct AskedStream {
    response: ResponseFuture,
    send: SendStream<Bytes>,
}

impl Opener {
    /// Begins HTTP/2 with a server; connections begin with that window.
    pub(crate) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        settings: &Settings,
        window: u32,
        stream: S,
    ) -> Result<(Self, ClientConnection<S>), h2::Error> {
        let handshake = client_builder(settings, window).handshake(stream);
        let (requests, connection) = handshake.await?;
        Ok((Self(requests), connection))
    }

    /// For gRPC calls on the session; the tracker owns the tasks that send their bodies.
    pub(crate) fn channel(&self, tasks: TaskTracker) -> Channel {
        Channel::new(self.0.clone(), tasks)
    }

    /// Opens the stream that answers a dial. What is sent on it goes out behind the answer.
    pub(crate) async fn answer(
        self,
        dial: DialId,
        server: &ServerAddr,
    ) -> Result<Stream, StreamError> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("https://{server}{CARRY_PATH}"))
            .header(DIAL_HEADER, dial.to_header())
            .body(())
            .expect("a server address makes a valid URI");
        let mut requests = self.0.ready().await?;
        let (response, send) = requests.send_request(request, false)?;
        Ok(Stream::asked(response, send))
    }
    /// Asks for a stream; these bytes go along.
    pub(crate) async fn ask(
        self,
        request: Request<()>,
        first: Bytes,
    ) -> Result<AskedStream, StreamError> {
        let mut requests = self.0.ready().await?;
        let (response, mut send) = requests.send_request(request, false)?;
        if !first.is_empty() {
            send.send_data(first, false)?;
        }
        Ok(AskedStream { response, send })
    }
}

impl AskedStream {
    /// The head of the answer, and the stream if it is to be used.
    pub(crate) async fn answer(self) -> Result<Response<Stream>, StreamError> {
        let answer = self.response.await?;
        Ok(answer.map(|receive| Stream::open(receive, self.send)))
    }
}
