//! The link to a node dies without a word, as mobile links do, and comes back; or it is slow, and lives.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use culvert_tests::{Lab, NetNs};

use crate::stage::{NODE, Stage};

/// What DESIGN and reference promise, with the default keepalive.
const NOTICED: Duration = Duration::from_secs(15);
/// Three times what a silent peer is given.
const BUSY: Duration = Duration::from_secs(30);

fn cut_and_restore(cut: impl Fn(&Lab, usize) -> anyhow::Result<()>) {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (mut server, mut agent) = stage.culvert("", "");
    let (mut client, mut accepted) = stage.pair(&target);
    let sending = thread::spawn(move || while accepted.write_all(&[7; 4096]).is_ok() {});
    client.read_exact(&mut vec![0; 1 << 20]).unwrap();

    cut(stage.lab(), 0).unwrap();
    let since = Instant::now();
    agent.forget_output();
    let reading = thread::spawn(move || {
        let mut sink = vec![0; 1 << 16];
        loop {
            match client.read(&mut sink) {
                Ok(0) => return (None, since.elapsed()),
                Ok(_) => {}
                Err(error) => return (Some(error.kind()), since.elapsed()),
            }
        }
    });
    server.wait_for_line("session ended", NOTICED).unwrap();
    let by_server = since.elapsed();
    agent.wait_for_line("session ended", NOTICED).unwrap();
    let by_agent = since.elapsed();
    let (end, by_client) = reading.join().unwrap();
    eprintln!("noticed by server {by_server:?}, agent {by_agent:?}, client {by_client:?}");
    assert!(by_server < NOTICED && by_agent < NOTICED && by_client < NOTICED);
    assert_eq!(end, Some(ErrorKind::ConnectionReset));
    sending.join().unwrap();
    stage.until_connected(0, false);

    stage.lab().restore(0).unwrap();
    stage.until_connected(0, true);
    let (mut client, mut accepted) = stage.pair(&target);
    client.write_all(b"again").unwrap();
    accepted.read_exact(&mut [0; 5]).unwrap();
}

#[test]
fn a_node_that_is_cut_off_in_a_transfer_is_noticed_by_both_ends_and_comes_back() {
    cut_and_restore(Lab::black_hole);
}

#[test]
fn a_node_whose_cable_is_pulled_is_noticed_by_both_ends_and_comes_back() {
    cut_and_restore(Lab::unplug);
}

/// What a shaper in front of a slow link does: seconds of packets wait before it drops any.
fn shape(namespace: &NetNs, what: &str) {
    let words = what.split_whitespace();
    let shaped = namespace.command("tc").arg("qdisc").args(words).output();
    let shaped = shaped.unwrap();
    assert!(shaped.status.success(), "{what}: {shaped:?}");
}

/// Reads for as long as the link is to be busy, and tells how many bytes came.
fn read_on(mut client: TcpStream) -> io::Result<usize> {
    let until = Instant::now() + BUSY;
    let (mut sink, mut count) = (vec![0; 1 << 16], 0);
    while Instant::now() < until {
        match client.read(&mut sink)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => count += read,
        }
    }
    Ok(count)
}

fn keeps_its_session_while_it_sends(rate: &str, downloads: usize) {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (_server, agent) = stage.culvert("", "");
    let pairs: Vec<_> = (0..downloads).map(|_| stage.pair(&target)).collect();
    shape(
        stage.edge(),
        &format!("add dev eth0 root tbf rate {rate} burst 4kb limit 200kb"),
    );
    let ends = pairs.into_iter().map(|(client, mut accepted)| {
        let writing = thread::spawn(move || while accepted.write_all(&[7; 4096]).is_ok() {});
        (thread::spawn(move || read_on(client)), writing)
    });
    let (readers, writers): (Vec<_>, Vec<_>) = ends.unzip();
    for reading in readers {
        let read = reading.join().unwrap();
        eprintln!("{rate}, one of {downloads}: {read:?} bytes");
        assert!(read.unwrap() > 0);
    }
    // Their end need not wait behind what is queued.
    shape(stage.edge(), "del dev eth0 root");
    for writing in writers {
        writing.join().unwrap();
    }
    let said = agent.output();
    assert!(!said.contains("session ended"), "{said}");
}

#[test]
fn a_slow_uplink_keeps_its_session_while_one_connection_fills_it() {
    keeps_its_session_while_it_sends("64kbit", 1);
}

#[test]
fn a_slow_uplink_keeps_its_session_while_several_connections_fill_it() {
    keeps_its_session_while_it_sends("256kbit", 4);
}
