//! The agent's own sockets: to servers, for enrolment as for sessions, and to targets.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use rand::seq::SliceRandom as _;
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

/// Connects to the first of the host's addresses that answers, in any order: who tries again and
/// again behind one name meets every server.
pub(crate) async fn connect_any(host_and_port: (&str, u16), mark: Mark) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut addresses: Vec<_> = tokio::net::lookup_host(host_and_port).await?.collect();
    addresses.shuffle(&mut rand::rng());
    for address in addresses {
        match connect(address, mark).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
