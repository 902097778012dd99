//! One end may be a version older than the other: servers are upgraded first, and agents follow when they do.

use culvert_tests::Daemon;
use culvert_tests::report::Hashes;

use crate::stage::{NODE, OTHER, PATIENCE, Stage};

/// What a pair of versions has to do: carry bytes unchanged in both directions, tell why a dial fails, and let an agent
/// that stops finish.
fn serves(stage: &Stage, server: &mut Daemon, agent: &mut Daemon) {
    let _target = stage.target(&format!("--bind {NODE} --hash"));
    let hash = format!("hash --to {NODE} --connections 8 --min 1 --max 4194304 --seconds 60");
    let report: Hashes = stage.report(&hash);
    assert_eq!(report.intact, 8, "{report:?}");
    stage.is_reset(OTHER);
    let told = server.wait_for_line("connection refused to the client", PATIENCE);
    let told = told.unwrap();
    for part in ["node=edge-1", OTHER, "connect: connection refused"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    assert!(
        agent.stop(PATIENCE).unwrap().success(),
        "{}",
        agent.output()
    );
}

#[test]
fn an_agent_of_the_version_before_serves_its_server() {
    let stage = Stage::new();
    let mut server = stage.server("");
    let join = stage.token(0, "");
    let agent = stage.site.previous_agent(0, &join).unwrap();
    let mut agent = agent.start().unwrap();
    agent
        .wait_for_line("session established", PATIENCE)
        .unwrap();
    stage.until_connected(0, true);
    serves(&stage, &mut server, &mut agent);
}

#[test]
fn a_server_of_the_version_before_serves_its_agent() {
    let stage = Stage::new();
    let mut server = stage.site.previous_server().unwrap().start().unwrap();
    server.wait_for_line("redirecting", PATIENCE).unwrap();
    let join = stage.token(0, "");
    let mut agent = stage.site.agent(0, &join).start().unwrap();
    agent
        .wait_for_line("session established", PATIENCE)
        .unwrap();
    serves(&stage, &mut server, &mut agent);
}
