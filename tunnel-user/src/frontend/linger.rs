//! A close that lets our last words arrive: bytes that nobody has read would make it a reset, by which some clients
//! lose what came before.

use std::{
    io::{self, ErrorKind},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{Shutdown, shutdown},
};
use tokio::net::TcpStream;

/// How long a client may take to read our last words and close.
pub(super) const TIME: Duration = Duration::from_secs(1);
/// What is read of it meanwhile, and thrown away.
const MOST_THROWN_AWAY: usize = 256 * 1024;

/// Says that no more is said, and reads what still comes until the client has closed, or has sent too much.
pub(super) async fn until_closed(socket: &TcpStream) -> io::Result<()> {
    match shutdown(socket, Shutdown::Write) {
        Err(Errno::NOTCONN) => return Ok(()),
        said => said?,
    }
    let mut thrown_away = 0;
    while thrown_away < MOST_THROWN_AWAY {
        socket.readable().await?;
        match throw_away(socket) {
            Ok(0) => break,
            Ok(read) => thrown_away += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Not part of the future, which would hold the buffer for as long as the client is here.
fn throw_away(socket: &TcpStream) -> io::Result<usize> {
    socket.try_read(&mut [0; 4096])
}
