//! A reset is passed on as a reset, never as an orderly end: who got a part must not take it for
//! the whole.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use socket2::SockRef;

use crate::stage::{NODE, Stage};

/// Ends a connection as a process does that gives up on it.
fn reset(stream: TcpStream) {
    let linger = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    linger.unwrap();
    drop(stream);
}

/// How the connection ends for its other side, after whatever is still to be read.
pub(crate) fn ending(mut stream: &TcpStream) -> Result<(), ErrorKind> {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.kind()),
    }
}

/// Writes until nobody takes any more: every buffer on the way is full.
fn fill(mut stream: &TcpStream) {
    stream
        .set_write_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    while stream.write(&[7; 4096]).is_ok() {}
}

#[test]
fn a_clients_reset_reaches_the_target() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (_server, _agent) = stage.culvert("", "");
    let (mut client, mut accepted) = stage.pair(&target);
    client.write_all(b"half of it").unwrap();
    accepted.read_exact(&mut [0; 10]).unwrap();
    reset(client);
    assert_eq!(ending(&accepted), Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_targets_reset_reaches_the_client() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (_server, _agent) = stage.culvert("", "");
    let (mut client, mut accepted) = stage.pair(&target);
    accepted.write_all(b"half of it").unwrap();
    client.read_exact(&mut [0; 10]).unwrap();
    reset(accepted);
    assert_eq!(ending(&client), Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_reset_after_an_end_of_stream_reaches_the_other_side() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (_server, _agent) = stage.culvert("", "");

    let (client, accepted) = stage.pair(&target);
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(ending(&accepted), Ok(()));
    reset(accepted);
    assert_eq!(ending(&client), Err(ErrorKind::ConnectionReset));

    let (client, accepted) = stage.pair(&target);
    accepted.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(ending(&client), Ok(()));
    reset(client);
    assert_eq!(ending(&accepted), Err(ErrorKind::ConnectionReset));
}

#[test]
fn resets_pass_readers_that_have_stopped_and_full_buffers() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (_server, _agent) = stage.culvert("", "");
    // Whoever resets, and whoever does not read: the other end must hear of it.
    let (client, accepted) = stage.pair(&target);
    fill(&client);
    reset(client);
    assert_eq!(ending(&accepted), Err(ErrorKind::ConnectionReset));

    let (client, accepted) = stage.pair(&target);
    fill(&client);
    reset(accepted);
    assert_eq!(ending(&client), Err(ErrorKind::ConnectionReset));

    let (client, accepted) = stage.pair(&target);
    fill(&accepted);
    reset(accepted);
    assert_eq!(ending(&client), Err(ErrorKind::ConnectionReset));

    let (client, accepted) = stage.pair(&target);
    fill(&accepted);
    reset(client);
    assert_eq!(ending(&accepted), Err(ErrorKind::ConnectionReset));
}
