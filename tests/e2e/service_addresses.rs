//! A `--redirect-address` that the machine does not have comes with the server and goes with it.

use std::net::TcpListener;

use culvert_tests::{Launch, programs};

use crate::stage::{PATIENCE, Stage, end_of};

const ADDRESS: &str = "10.99.0.1";

fn server(stage: &Stage) -> Launch {
    stage
        .client(stage.control(), programs::culvert().unwrap())
        .words("server --redirect-address")
        .arg(ADDRESS)
        .arg("--state-dir")
        .arg(stage.site.server_state())
        .arg("--run-dir")
        .arg(stage.site.server_run())
        .arg("--cgroup")
        .arg(stage.site.captured().path())
        .arg("--pin-root")
        .arg(stage.site.pins())
}

fn is_there(stage: &Stage) -> bool {
    let bound = stage.control().run(|| TcpListener::bind((ADDRESS, 0)));
    bound.is_ok()
}

#[test]
fn an_address_that_was_there_before_stays() {
    let stage = Stage::new();
    let there = format!("addr add {ADDRESS}/32 dev lo");
    stage.control().ip(&there).unwrap();
    let mut server = stage.ready(&server(&stage));
    assert!(server.stop(PATIENCE).unwrap().success());
    assert!(is_there(&stage));
}

#[test]
fn a_server_that_cannot_start_leaves_no_address() {
    let stage = Stage::new();
    let everywhere = stage.control().run(|| TcpListener::bind("0.0.0.0:10270"));
    let error = end_of(&server(&stage)).unwrap_err();
    assert!(
        error.contains("cannot listen on 10.99.0.1:10270"),
        "{error}"
    );
    // Whoever took the port, for a joke or on purpose: the operator learns whom to stop.
    let holder = format!("process {} (", std::process::id());
    assert!(
        error.contains(&holder) && error.contains("of user 0 holds port 10270"),
        "{error}"
    );
    assert!(error.contains("address added") && !is_there(&stage));
    drop(everywhere);
}

#[test]
fn the_address_of_a_killed_server_goes_with_the_next_one() {
    let stage = Stage::new();
    stage.ready(&server(&stage)).kill().unwrap();
    assert!(is_there(&stage));
    let mut next = stage.ready(&server(&stage));
    assert!(next.stop(PATIENCE).unwrap().success());
    assert!(!is_there(&stage));
}

#[test]
fn an_address_that_was_handed_over_goes_with_the_successor() {
    let stage = Stage::new();
    let mut first = stage.ready(&server(&stage));
    let mut second = stage.ready(&server(&stage));
    assert!(first.wait(PATIENCE).unwrap().success());
    assert!(is_there(&stage));
    assert!(second.stop(PATIENCE).unwrap().success());
    assert!(!is_there(&stage));
}
