//! Carries one connection: the bytes of a socket through a stream of the session and back,
//! unchanged.
//!
//! ```text
//!   socket --outbound--> stream      reads only what flow control lets through
//!   socket <--inbound--- stream      opens the window only for what the socket took
//! ```
//! Both directions live in one task and end on their own: the end of one is passed on as a
//! half-close. A reset, from whichever side, ends both at once and is passed on as a reset, even
//! while a direction waits for a reader that has stopped.

mod inbound;
mod outbound;

use std::{future::Future, io, pin::pin};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::{io::Interest, net::TcpStream};

use self::{inbound::Inbound, outbound::Outbound};

/// What one connection carried, and how it ended.
#[derive(Debug)]
pub struct Transfer {
    /// Bytes taken from the socket.
    pub from_socket: u64,
    /// Bytes that the socket took.
    pub to_socket: u64,
    /// Both sides closed after all bytes had arrived, or why not.
    pub end: Result<(), CarryError>,
}

/// Which side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The socket on this machine.
    Socket,
    /// The other end of the tunnel.
    Tunnel,
}

/// Why a connection ended before both sides had closed it.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// The socket on this machine was reset, or failed.
    #[error("the socket failed")]
    Socket(#[source] io::Error),
    /// The other end reset its stream, for its socket failed.
    #[error("the other end reset the connection ({0})")]
    Reset(Reason),
    /// The session ended.
    #[error("the session ended")]
    Session(#[source] h2::Error),
}

impl CarryError {
    /// Which side ended the connection.
    pub fn side(&self) -> Side {
        match self {
            Self::Socket(_) => Side::Socket,
            Self::Reset(_) | Self::Session(_) => Side::Tunnel,
        }
    }
}

impl From<h2::Error> for CarryError {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() => Self::Reset(reason),
            Some(_) | None => Self::Session(error),
        }
    }
}

/// Carries until both sides have closed, or one is reset. `receive` resolves to the stream's
/// receiving half, which the agent gets only with the server's response; sending need not wait.
pub(crate) async fn carry(
    socket: TcpStream,
    mut send: SendStream<Bytes>,
    receive: impl Future<Output = Result<RecvStream, h2::Error>>,
) -> Transfer {
    let outbound = Outbound::default();
    let inbound = Inbound::default();
    let end = both_ways(&socket, &mut send, receive, &outbound, &inbound).await;
    if end.is_err() {
        send.send_reset(Reason::CANCEL);
        reset(&socket);
    }
    Transfer {
        from_socket: outbound.bytes(),
        to_socket: inbound.bytes(),
        end,
    }
}

/// Makes the closing of the socket a reset, so that its peer does not take what it got for the
/// whole.
pub(crate) fn reset(socket: &TcpStream) {
    if let Err(error) = socket.set_zero_linger() {
        tracing::debug!(%error, "the socket was closed without a reset");
    }
}

async fn both_ways(
    socket: &TcpStream,
    send: &mut SendStream<Bytes>,
    receive: impl Future<Output = Result<RecvStream, h2::Error>>,
    outbound: &Outbound,
    inbound: &Inbound,
) -> Result<(), CarryError> {
    let mut receiving = pin!(async { inbound.run(receive.await?, socket).await });
    let (mut sent, mut received) = (false, false);
    while !(sent && received) {
        let sending = async {
            if sent {
                // After our end of stream only this still notices that the other end gave up.
                return Err(outbound::reset_by_peer(send).await);
            }
            outbound.run(socket, send).await
        };
        tokio::select! {
            end = sending => {
                end?;
                sent = true;
            }
            end = &mut receiving, if !received => {
                end?;
                received = true;
            }
            error = socket_error(socket) => return Err(CarryError::Socket(error)),
        }
    }
    Ok(())
}

/// Resolves when the socket is reset, even if nobody reads or writes it at that moment.
async fn socket_error(socket: &TcpStream) -> io::Error {
    match socket.ready(Interest::ERROR).await {
        Ok(_) => socket
            .take_error()
            .ok()
            .flatten()
            .unwrap_or_else(|| io::ErrorKind::ConnectionReset.into()),
        Err(error) => error,
    }
}
