//! A machine whose clock is wrong when it boots, and right later.

use std::time::Duration;

use culvert_tests::{Daemon, Lab, Site, until};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_mins(1);
const DAY: i64 = 86_400;

/// Sets the clock forward or back by so many days; the time that passes meanwhile stays.
fn turn(days: i64) {
    let now = clock_gettime(ClockId::Realtime);
    let then = Timespec {
        tv_sec: now.tv_sec + days * DAY,
        ..now
    };
    clock_settime(ClockId::Realtime, then).unwrap();
}

fn ready(site: &Site) -> Daemon {
    let mut server = site.server().start().unwrap();
    server.wait_for_line("redirecting", PATIENCE).unwrap();
    server
}

/// Why the server says that its CA is of no use, if it does.
fn ca(status: &Value) -> Option<String> {
    let mut conditions = status["conditions"].as_array().unwrap().iter();
    let condition = conditions
        .find(|condition| condition["name"] == "ca")
        .unwrap();
    condition["reason"].as_str().map(ToOwned::to_owned)
}

#[test]
fn an_agent_whose_clock_is_ahead_at_its_start_goes_on_when_it_is_set() {
    let site = Site::new(Lab::nat().unwrap()).unwrap();
    let _server = ready(&site);
    let join = site.token("edge-1", 0).unwrap();
    let mut agent = site.agent(0, &join).start().unwrap();
    agent
        .wait_for_line("session established", PATIENCE)
        .unwrap();
    agent.stop(PATIENCE).unwrap();

    turn(400);
    let again = "culvert agent --server 10.77.0.1 --node-name edge-1";
    let mut agent = site.agent(0, again).start().unwrap();
    let told = agent.wait_for_line("waiting for the clock", PATIENCE);
    turn(-400);
    let told = told.unwrap();
    assert!(told.contains("the stored certificate expired at"), "{told}");
    assert!(agent.is_running());
    // Whatever the server has issued itself meanwhile.
    agent
        .wait_for_line("session established", PATIENCE)
        .unwrap();
}

#[test]
fn a_server_whose_clock_was_ahead_is_trusted_again_once_it_is_set() {
    let site = Site::new(Lab::nat().unwrap()).unwrap();
    let mut server = ready(&site);
    server.stop(PATIENCE).unwrap();

    turn(400);
    // Its certificate has ended: it issues another, in the future.
    let server = ready(&site);
    turn(-400);
    let join = site.token("edge-1", 0).unwrap();
    let mut agent = site.agent(0, &join).start().unwrap();
    agent
        .wait_for_line("session established", PATIENCE)
        .unwrap();
    drop(server);
}

#[test]
fn no_ca_is_made_in_a_year_that_is_over_and_one_that_has_ended_is_told() {
    let site = Site::new(Lab::nat().unwrap()).unwrap();
    turn(-3_650);
    let mut early = site.server().start().unwrap();
    let ended = early.wait(PATIENCE);
    turn(3_650);
    assert!(!ended.unwrap().success());
    let said = early.output();
    assert!(said.contains("this machine's clock says"), "{said}");
    assert!(!site.server_state().join("ca.pem").exists());

    let _server = ready(&site);
    assert_eq!(ca(&site.status().unwrap()), None);
    turn(20 * 365);
    let told = until("it is told", PATIENCE, || Ok(ca(&site.status()?)));
    turn(-20 * 365);
    let told = told.unwrap();
    assert!(told.contains("the CA ended at"), "{told}");
    until("all is well", PATIENCE, || {
        Ok(ca(&site.status()?).is_none().then_some(()))
    })
    .unwrap();
}
