//! Connections that one side has closed, and whose other side is gone without a word.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use culvert_tests::until;

use crate::stage::{NODE, PATIENCE, Stage, accept};

const CLIENTS: usize = 20;
/// A peer's kernel is asked after 30 s, and then every 10 s three times.
const NOTICED: Duration = Duration::from_mins(1);

#[test]
fn clients_that_vanish_with_half_closed_connections_leave_their_places() {
    let stage = Stage::with_pod();
    let target = stage.listen(NODE);
    let (_server, _agent) = stage.culvert("", "");
    let pod = stage.lab().pod(0).namespace();
    let pairs: Vec<_> = (0..CLIENTS)
        .map(|_| (stage.connect_from(pod, NODE), accept(&target)))
        .collect();
    for (_, accepted) in &pairs {
        accepted.shutdown(Shutdown::Write).unwrap();
    }
    let stays = stage.pair(&target);
    stays.1.shutdown(Shutdown::Write).unwrap();
    stage.until("all are open", |status| {
        status.sessions[0].open_connections == CLIENTS as u64 + 1
    });

    pod.ip("link set eth0 down").unwrap();
    let vanished = Instant::now();
    until(
        "only the one that is there is open",
        NOTICED + PATIENCE,
        || Ok((stage.status().sessions[0].open_connections == 1).then_some(())),
    )
    .unwrap();
    eprintln!("noticed after {:?}", vanished.elapsed());
    assert_eq!(
        stage.metric("connections_total{frontend=\"transparent\",outcome=\"reset\"}"),
        CLIENTS as u64
    );
    drop((pairs, stays));
}
