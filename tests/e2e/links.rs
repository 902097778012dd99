//! The link to a node dies without a word, as mobile links do, and comes back.

use std::io::{ErrorKind, Read as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use culvert_tests::Lab;

use crate::stage::{NODE, Stage};

/// What DESIGN and reference promise, with the default keepalive.
const NOTICED: Duration = Duration::from_secs(15);

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
