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

/// Bytes of data in a small segment, in both directions: what the kernel itself falls back to where a path is found to
/// lose large ones ([`TCP_BASE_MSS`]).
///
/// [`TCP_BASE_MSS`]: https://github.com/torvalds/linux/blob/v5.10/include/net/tcp.h#L63
pub(crate) const SMALL_SEGMENT: u32 = 1024;

/// How large the segments of a connection may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SegmentSize {
    /// As large as the link lets them be.
    Full,
    /// [`SMALL_SEGMENT`].
    Small,
}

/// Connects with the mark that keeps a redirect on the same machine away, so that a tunnel never
/// leads into itself. Setting it takes `CAP_NET_ADMIN`; an agent that runs without has no server
/// beside it to fear, usually, and is told once.
pub(crate) async fn connect(
    address: SocketAddr,
    mark: Mark,
    segments: SegmentSize,
) -> io::Result<TcpStream> {
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
    if segments == SegmentSize::Small {
        SockRef::from(&socket).set_tcp_mss(SMALL_SEGMENT)?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects to the first of the host's addresses that answers, in any order: who tries again and
/// again behind one name meets every server.
pub(crate) async fn connect_any(
    host_and_port: (&str, u16),
    mark: Mark,
    segments: SegmentSize,
) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut addresses: Vec<_> = tokio::net::lookup_host(host_and_port).await?.collect();
    addresses.shuffle(&mut rand::rng());
    for address in addresses {
        match connect(address, mark, segments).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
