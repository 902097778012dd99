//! Who has stopped reading delays nobody else, and costs a bounded amount of memory.

use std::io::Write as _;
use std::time::Duration;

use culvert_tests::report::Pings;
use culvert_tests::scale;

use crate::stage::{NODE, OTHER, PATIENCE, Stage, resident_kib};

/// The first window and a frame in each direction, and the allocator's share.
const KIB_OF_A_CONNECTION: u64 = 2 * (256 + 64) + 128;
/// What pings and the growth of tables cost.
const KIB_OF_THE_REST: u64 = 12 * 1024;

#[test]
fn pings_go_on_beside_stopped_readers_and_memory_stays_bounded() {
    let stage = Stage::new();
    let _downloads = stage.target(&format!("--bind {NODE} --hash"));
    let _echo = stage.target(&format!("--bind {OTHER}"));
    let (server, agent) = stage.culvert("", "");
    let pings = scale::count(5000, 1000, 200);
    let ping =
        || -> Pings { stage.report(&format!("ping --to {OTHER} --count {pings} --timeout 5")) };

    let alone = ping();
    let before = [resident_kib(&server), resident_kib(&agent)];
    let stopped = scale::count(30, 10, 4);
    let _clients: Vec<_> = (0..stopped)
        .map(|_| {
            let line = format!("stall --to {NODE} --seconds 200");
            let mut client = stage.probe(stage.control(), &line).start().unwrap();
            client.wait_for_line("stalled", PATIENCE).unwrap();
            client
        })
        .collect();
    let beside = ping();
    eprintln!("pings alone {alone:?}, beside {stopped} stopped readers {beside:?}");
    assert_eq!(beside.count, pings);
    // The exact ratio is the benchmark's; held back by a reader they would wait for seconds.
    assert!(beside.p90_us < alone.p90_us.max(1000.0) * 20.0);
    let after = [resident_kib(&server), resident_kib(&agent)];
    let bound = stopped * KIB_OF_A_CONNECTION + KIB_OF_THE_REST;
    for (before, after) in before.into_iter().zip(after) {
        eprintln!("resident {before} KiB, then {after} KiB, may grow by {bound} KiB");
        assert!(after < before + bound);
    }
}

#[test]
fn pings_go_on_beside_a_stopped_target_which_gets_every_byte_once_it_reads() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let _echo = stage.target(&format!("--bind {OTHER}"));
    let (server, agent) = stage.culvert("", "");
    let (client, mut accepted) = stage.pair(&target);
    let before = [resident_kib(&server), resident_kib(&agent)];
    client
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut sent = 0;
    while let Ok(written) = (&client).write(&[7; 4096]) {
        sent += written as u64;
    }
    let pings: Pings = stage.report(&format!("ping --to {OTHER} --count 200 --timeout 5"));
    assert_eq!(pings.count, 200);
    let after = [resident_kib(&server), resident_kib(&agent)];
    for (before, after) in before.into_iter().zip(after) {
        assert!(after < before + KIB_OF_A_CONNECTION + KIB_OF_THE_REST);
    }
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let read = std::io::copy(&mut accepted, &mut std::io::sink()).unwrap();
    assert_eq!(read, sent);
}

#[test]
fn single_bytes_for_readers_that_have_stopped_cost_a_window_and_arrive_once_they_read() {
    let stage = Stage::new();
    for namespace in [stage.control(), stage.edge()] {
        // The kernel keeps little of what a reader does not take: server and agent have to.
        let small = namespace.sysctl("net.ipv4.tcp_wmem", "4096 8192 8192");
        small.unwrap();
    }
    let target = stage.listen(NODE);
    let _echo = stage.target(&format!("--bind {OTHER}"));
    let (server, agent) = stage.culvert("", "");
    let before = [resident_kib(&server), resident_kib(&agent)];
    // One whose client does not read, one whose target does not.
    let ((client, accepted), (other_client, other_accepted)) =
        (stage.pair(&target), stage.pair(&target));
    let stalled: Vec<_> = [(accepted, client), (other_client, other_accepted)]
        .into_iter()
        .map(|(writer, reader)| {
            socket2::SockRef::from(&reader)
                .set_recv_buffer_size(4096)
                .unwrap();
            let sent = write_single_bytes(&writer);
            (writer, reader, sent)
        })
        .collect();
    let pings: Pings = stage.report(&format!("ping --to {OTHER} --count 200 --timeout 5"));
    assert_eq!(pings.count, 200);
    let after = [resident_kib(&server), resident_kib(&agent)];
    // As frames, single bytes would be 25 MiB.
    let bound = 2 * KIB_OF_A_CONNECTION + KIB_OF_THE_REST;
    for (before, after) in before.into_iter().zip(after) {
        eprintln!("resident {before} KiB, then {after} KiB, may grow by {bound} KiB");
        assert!(after < before + bound);
    }
    for (writer, mut reader, sent) in stalled {
        writer.shutdown(std::net::Shutdown::Write).unwrap();
        let read = std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
        assert_eq!(read, sent);
    }
}

/// Fewer than the window, so that nothing makes them wait and be sent as more than single bytes.
fn write_single_bytes(mut writer: &std::net::TcpStream) -> u64 {
    const COUNT: u64 = 100_000;
    writer.set_nodelay(true).unwrap();
    for _ in 0..COUNT {
        writer.write_all(&[7]).unwrap();
    }
    COUNT
}
