//! Many agents: all come back soon, whoever else knocks, and none of them takes much.

use std::time::Duration;

use culvert_tests::{crowd::Crowd, scale};

/// How soon all have to be back after the server was killed. The benchmark asks it for 10,000, of programs that are
/// built for release, on a machine that does nothing else.
const BACK_WITHIN: Duration = Duration::from_secs(30);
/// 40 KiB are what the benchmark asks for, where the programs are built for release. Half of that is for what a
/// build without optimisation and few sessions add.
const SESSION_KIB: f64 = 60.0;

#[test]
fn all_agents_are_back_in_time_while_strangers_knock() {
    let agents = u32::try_from(scale::count(3_000, 1_000, 100)).unwrap();
    let strangers = u32::try_from(scale::count(3_600, 1_000, 100)).unwrap();
    let mut crowd = Crowd::new(agents).unwrap();
    crowd.start_server().unwrap();
    let empty = crowd.resident_kib().unwrap();
    crowd.start_agents().unwrap();
    crowd.wait_for_agents(BACK_WITHIN).unwrap();
    let each = (crowd.resident_kib().unwrap() - empty) / f64::from(agents);
    assert!(
        each <= SESSION_KIB,
        "{each:.1} KiB for each of {agents} sessions"
    );

    let strangers = crowd.strangers(strangers).unwrap();
    crowd.restart_server().unwrap();
    crowd.wait_for_agents(BACK_WITHIN).unwrap();
    let strangers = culvert_tests::crowd::end(strangers).unwrap();
    assert!(strangers.knocked > 0, "{strangers:?}");
}
