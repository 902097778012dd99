//! A connection over a long link: what its client says first goes with the dial, and its window follows what its reader
//! takes.

use std::io::{Read as _, Write as _};
use std::thread;
use std::time::Duration;

use culvert_tests::report::Hashes;
use culvert_tests::{scale, until};

use crate::stage::{NODE, PATIENCE, Stage, over_long_link};

/// Each way.
const DELAY_MS: u64 = 50;
/// Each way, where it must stand out from what a busy machine takes.
const SLOW_MS: u64 = 250;
const BYTES: usize = 16 << 20;

#[test]
fn a_long_link_is_filled_by_one_connection_both_ways() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE} --hash"));
    let _server = stage.server("");
    let _link = stage.long_link(DELAY_MS);
    let _agent = stage.up(0, &over_long_link(&stage.token(0, "")));
    let line = format!("hash --to {NODE} --connections 1 --min {BYTES} --max {BYTES} --seconds 60");
    let report: Hashes = stage.report(&line);
    assert_eq!(report.intact, 1, "{report:?}");
    // With windows of 256 KiB it would be 64 round trips; those that grow take about ten.
    let round_trips = scale::patience(Duration::from_millis(2 * DELAY_MS)) * 30;
    assert!(report.seconds < round_trips.as_secs_f64(), "{report:?}");
}

#[test]
fn one_that_rests_gives_back_what_its_window_has_grown() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let _server = stage.server("");
    let _link = stage.long_link(DELAY_MS);
    let _agent = stage.up(0, &over_long_link(&stage.token(0, "")));
    let grown = || stage.metric("connection_windows_grown_bytes");
    let (mut client, accepted) = stage.pair(&target);
    let writing = thread::spawn(move || {
        (&accepted).write_all(&vec![7; BYTES]).unwrap();
        accepted
    });
    client.read_exact(&mut vec![0; BYTES]).unwrap();
    let mut accepted = writing.join().unwrap();
    let before = grown();
    assert!(before > 1 << 20, "{before}");
    let rested = Duration::from_secs(10) * 2;
    until("all of it is given back", rested + PATIENCE, || {
        Ok((grown() == 0).then_some(()))
    })
    .unwrap();
    // And it carries on.
    let writing = thread::spawn(move || client.write_all(&vec![7; BYTES]).unwrap());
    accepted.read_exact(&mut vec![0; BYTES]).unwrap();
    writing.join().unwrap();
}

#[test]
fn a_client_that_speaks_at_once_hears_its_answer_after_one_round_trip() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let _server = stage.server("");
    let round_trip = Duration::from_millis(2 * SLOW_MS);
    let _link = stage.long_link(SLOW_MS);
    let _agent = stage.up(0, &over_long_link(&stage.token(0, "")));
    // The first dial has the round trip measured, and does not know it yet.
    let fastest = (0..5).map(|_| {
        let (failed, took) = stage.try_once(NODE);
        assert_eq!(failed, None);
        took
    });
    let fastest = fastest.min().unwrap();
    // The dial, and then the byte and its answer, took two.
    assert!(fastest >= round_trip, "{fastest:?}");
    assert!(fastest < round_trip * 3 / 2, "{fastest:?}");
}
