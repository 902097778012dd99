//! An address for redirected connections that the control plane has only because of the server.

use crate::stage::{NODE, PATIENCE, Stage};

const SERVICE: &str = "10.77.9.9";

fn has_service_address(stage: &Stage) -> bool {
    stage
        .control()
        .ip("addr show dev lo")
        .unwrap()
        .contains(SERVICE)
}

#[test]
fn a_service_address_outlives_upgrades_and_kills_and_goes_with_the_last_server() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let launch = stage.site.server_on(&[SERVICE.parse().unwrap()]);
    let mut server = stage.ready(&launch);
    let _agent = stage.agent(0, "");
    stage.works(NODE);
    let mut next = stage.ready(&launch);
    assert!(server.wait(PATIENCE).unwrap().success());
    stage.works(NODE);
    next.kill().unwrap();
    assert!(has_service_address(&stage), "nobody was left to remove it");
    let mut last = stage.ready(&launch);
    stage.until_connected(0, true);
    stage.works(NODE);
    assert!(last.stop(PATIENCE).unwrap().success());
    assert!(!has_service_address(&stage), "the last server removes it");
}

#[test]
fn an_address_that_was_there_before_stays() {
    let stage = Stage::new();
    let there = format!("addr add {SERVICE}/32 dev lo");
    stage.control().ip(&there).unwrap();
    let launch = stage.site.server_on(&[SERVICE.parse().unwrap()]);
    let mut server = stage.ready(&launch);
    assert!(server.stop(PATIENCE).unwrap().success());
    assert!(has_service_address(&stage));
}
