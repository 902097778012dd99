//! The agent's own sockets: to servers, for enrolment as for sessions, and to targets.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use crate::model::Mark;

/// Connects with the mark that keeps a redirect on the same machine away, so that a tunnel never
/// leads into itself. Setting it takes `CAP_NET_ADMIN`; an agent that runs without has no server
/// beside it to fear, usually, and is told once.
pub(crate) async fn connect(address: SocketAddr, mark: Mark) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Err(error) = SockRef::from(&socket).set_mark(mark.number()) {
        static TOLD: AtomicBool = AtomicBool::new(false);
        if !TOLD.swap(true, Ordering::Relaxed) {
            tracing::debug!(%error, "cannot mark sockets, which matters only beside a server");
        }
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects to the first of the host's addresses that answers.
pub(crate) async fn connect_any(host_and_port: (&str, u16), mark: Mark) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host(host_and_port).await? {
        match connect(address, mark).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
