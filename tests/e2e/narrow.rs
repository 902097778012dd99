//! A path that drops packets of full size, and the word that would say so, while small ones pass.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::stage::{NODE, PATIENCE, Stage};

/// What a transfer moves: many packets of full size.
const LOAD: usize = 1 << 20;
/// How long a session that stands still may take to be replaced.
const REPLACED: Duration = Duration::from_secs(30);

/// Drops what is larger than 1300 bytes and comes in through that port of the router. The ends send each segment as a
/// packet of its own, as they do on a wire.
fn narrow(stage: &Stage, port: &str) {
    let drop = format!("iifname \"{port}\" meta length > 1300 drop");
    let chain = format!("chain forward {{ type filter hook forward priority -10; {drop}; }}");
    let router = stage.lab().router();
    router
        .nft(&format!("table inet narrow {{ {chain}\n}}\n"))
        .unwrap();
    for end in [stage.edge(), stage.control()] {
        end.ip("link set eth0 gso_max_segs 1").unwrap();
    }
}

/// Moves the load from one end to the other, unless the connection is reset.
fn transfer(mut from: TcpStream, mut to: TcpStream) -> bool {
    let sending = thread::spawn(move || from.write_all(&vec![7; LOAD]).map(|()| from));
    let arrived = to.read_exact(&mut vec![0; LOAD]).is_ok();
    sending.join().unwrap().is_ok() && arrived
}

/// A transfer ends the session, whose successor carries the next one; which end names the cause is which end's packets
/// are lost.
fn is_replaced(outward: bool) {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (mut server, mut agent) = stage.culvert("", "");
    narrow(&stage, if outward { "edge0" } else { "north" });
    let ends = || {
        let (client, accepted) = stage.pair(&target);
        if outward {
            (accepted, client)
        } else {
            (client, accepted)
        }
    };
    let began = Instant::now();
    let (from, to) = ends();
    agent.forget_output();
    assert!(!transfer(from, to), "the path is wide enough");
    agent
        .wait_for_line("session established", PATIENCE)
        .unwrap();
    eprintln!("replaced after {:?}", began.elapsed());
    assert!(began.elapsed() < REPLACED);
    let names = if outward { &mut agent } else { &mut server };
    for line in [
        "reason=\"packets of full size seem to be lost\"",
        "packets of full size seem to be lost on the way to this",
    ] {
        names.wait_for_line(line, PATIENCE).unwrap();
    }

    stage.until_connected(0, true);
    agent.forget_output();
    let (from, to) = ends();
    assert!(transfer(from, to));
    let said = agent.output();
    assert!(!said.contains("session ended"), "{said}");
}

#[test]
fn a_path_that_loses_large_packets_outward_is_named_and_gets_small_ones() {
    is_replaced(true);
}

#[test]
fn a_path_that_loses_large_packets_inward_is_named_and_gets_small_ones() {
    is_replaced(false);
}

#[test]
fn an_agent_whose_handshake_is_lost_for_its_size_gets_a_session() {
    for port in ["edge0", "north"] {
        let stage = Stage::new();
        let target = stage.listen(NODE);
        let _server = stage.server("");
        narrow(&stage, port);
        let join = stage.token(0, "");
        let began = Instant::now();
        let mut agent = stage.site.agent(0, &join).start().unwrap();
        agent
            .wait_for_line("session established", 2 * PATIENCE)
            .unwrap();
        eprintln!("{port}: a session after {:?}", began.elapsed());
        agent.wait_for_line("segment=1024", PATIENCE).unwrap();
        stage.until_connected(0, true);
        let (client, accepted) = stage.pair(&target);
        assert!(transfer(client, accepted));
        let (client, accepted) = stage.pair(&target);
        assert!(transfer(accepted, client));
    }
}
