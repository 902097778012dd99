//! The control plane's own addresses come late, change and go: the redirect leads to one that is there, or the server
//! says why it cannot.

use std::time::{Duration, Instant};

use culvert_tests::report::{Connects, parse};
use culvert_tests::{Daemon, NetNs, until};

use crate::stage::{NODE, PATIENCE, Stage};

/// How soon connects work again.
const SOON: Duration = Duration::from_secs(10);
/// Clients served by notes are sent to the listener's address; the others to one that stands for the node.
const SCHEMES: [&str; 2] = ["--host-range none --pod-ranges none", ""];
/// Where agents find the server whatever becomes of its other addresses.
const STABLE: &str = "10.99.9.9";

/// A stage whose agents do not depend on the addresses of `eth0`.
fn stage() -> Stage {
    let stage = Stage::with_pod();
    let control = stage.control();
    control.ip(&format!("addr add {STABLE}/32 dev lo")).unwrap();
    let to_stable = format!("route add {STABLE}/32 dev north");
    stage.lab().router().ip(&to_stable).unwrap();
    let to_router = format!("route add {STABLE}/32 via 10.78.0.1");
    stage.edge().ip(&to_router).unwrap();
    // So it is this interface that leads to a router, and not the pod's.
    control
        .ip("route add 203.0.113.0/24 via 10.77.0.254")
        .unwrap();
    stage
}

/// A server that is told no address to redirect to.
fn server(stage: &Stage, flags: &str) -> Daemon {
    let server = stage.site.server_on(&[]).words(flags);
    let mut server = server.start().unwrap();
    server.wait_for_line("redirecting", PATIENCE).unwrap();
    server
}

fn agent(stage: &Stage) -> Daemon {
    let join = stage.token(0, "");
    stage.up(
        0,
        &join.replace("10.77.0.1:10262", &format!("{STABLE}:10262")),
    )
}

/// Where connects over IPv4 are redirected to, and why there.
fn listener(stage: &Stage) -> (String, String) {
    let redirect = stage.status().redirect.unwrap();
    let mut listeners = redirect.chosen.into_iter();
    let (address, reason) = listeners.find(|(address, _)| address.is_ipv4()).unwrap();
    (address.to_string(), reason)
}

/// Why the address is none, if it is none.
fn refused(stage: &Stage) -> Option<String> {
    let mut conditions = stage.status().conditions.into_iter();
    let address = conditions.find(|condition| condition.name == "address");
    address.unwrap().reason
}

/// Waits until somebody there is served.
#[track_caller]
fn served_soon(stage: &Stage, client: &NetNs) {
    let began = Instant::now();
    until("a connect works", PATIENCE, || {
        let connect = format!("connect --to {NODE} --echo --timeout-ms 500");
        let report = stage.probe(client, &connect).start()?.succeed(PATIENCE)?;
        let report: Connects = parse(&report)?;
        Ok((report.succeeded == 1).then_some(()))
    })
    .unwrap();
    let took = began.elapsed();
    assert!(took < SOON, "{took:?}");
}

#[test]
fn connects_work_again_when_the_machine_has_another_address() {
    for scheme in SCHEMES {
        let stage = stage();
        let _target = stage.target(&format!("--bind {NODE}"));
        let _server = server(&stage, scheme);
        let _agent = agent(&stage);
        let pod = stage.lab().pod(0).namespace();
        for client in [stage.control(), pod] {
            served_soon(&stage, client);
        }
        assert_eq!(listener(&stage).0, "10.77.0.1:10270");
        stage
            .control()
            .ip("addr del 10.77.0.1/24 dev eth0")
            .unwrap();
        stage
            .control()
            .ip("addr add 10.77.0.9/24 dev eth0")
            .unwrap();
        stage
            .control()
            .ip("route add 203.0.113.0/24 via 10.77.0.254")
            .unwrap();
        pod.ip("route add 10.77.0.9/32 via 10.79.1.1").unwrap();
        for client in [stage.control(), pod] {
            served_soon(&stage, client);
        }
        stage.until("it listens there", |_| {
            listener(&stage).0 == "10.77.0.9:10270"
        });
        stage.until("all is well", |status| {
            status.conditions.iter().all(|condition| condition.ready)
        });
    }
}

#[test]
fn an_address_that_comes_back_at_once_is_listened_on_again() {
    let stage = stage();
    let _target = stage.target(&format!("--bind {NODE}"));
    let server = server(&stage, SCHEMES[0]);
    let _agent = agent(&stage);
    let control = stage.control();
    control.ip("addr del 10.77.0.1/24 dev eth0").unwrap();
    stage.until("it listens elsewhere", |_| {
        listener(&stage).0 != "10.77.0.1:10270"
    });
    control.ip("addr add 10.77.0.1/24 dev eth0").unwrap();
    let to_router = "route add 203.0.113.0/24 via 10.77.0.254";
    control.ip(to_router).unwrap();
    stage.until("it listens there", |_| {
        listener(&stage).0 == "10.77.0.1:10270"
    });
    for client in [control, stage.lab().pod(0).namespace()] {
        served_soon(&stage, client);
    }
    let said = server.output();
    assert!(!said.contains("cannot follow"), "{said}");
}

#[test]
fn an_address_that_comes_after_the_start_is_used_and_until_then_its_absence_is_told() {
    let stage = Stage::new();
    for address in ["10.77.0.1/24", "fd00:77::1/64"] {
        let away = format!("addr del {address} dev eth0");
        stage.control().ip(&away).unwrap();
    }
    let _server = server(&stage, SCHEMES[0]);
    stage.until("it is told", |_| refused(&stage).is_some());
    let reason = refused(&stage).unwrap();
    assert!(reason.contains("no address but loopback"), "{reason}");
    assert_eq!(listener(&stage).0, "127.0.0.1:10270");

    stage
        .control()
        .ip("addr add 10.77.0.1/24 dev eth0")
        .unwrap();
    let _target = stage.target(&format!("--bind {NODE}"));
    let _agent = stage.agent(0, "");
    served_soon(&stage, stage.control());
    stage.until("it listens there", |_| {
        listener(&stage).0 == "10.77.0.1:10270"
    });
    assert_eq!(refused(&stage), None);
}

#[test]
fn a_virtual_address_is_not_taken_for_the_machines_own() {
    let stage = stage();
    let control = stage.control();
    control.ip("addr del 10.77.0.1/24 dev eth0").unwrap();
    control.ip("addr add 10.77.0.100/32 dev eth0").unwrap();
    let to_router = "route add 203.0.113.0/24 via 10.77.0.254 dev eth0 onlink";
    control.ip(to_router).unwrap();
    let _server = server(&stage, SCHEMES[0]);
    let (address, reason) = listener(&stage);
    assert_eq!(address, "10.77.0.100:10270");
    assert!(
        reason.contains("eth0") && reason.contains("single host"),
        "{reason}"
    );
    control.ip("addr add 10.77.0.1/24 dev eth0").unwrap();
    stage.until("it listens there", |_| {
        listener(&stage).0 == "10.77.0.1:10270"
    });

    let _target = stage.target(&format!("--bind {NODE}"));
    let _agent = agent(&stage);
    let pod = stage.lab().pod(0).namespace();
    control.ip("addr del 10.77.0.100/32 dev eth0").unwrap();
    for client in [control, pod] {
        served_soon(&stage, client);
    }
}

#[test]
fn a_named_address_that_goes_is_told_and_one_that_the_server_has_added_comes_back() {
    let stage = stage();
    let control = stage.control();
    control.ip("addr add 10.77.0.5/32 dev eth0").unwrap();
    let named = format!("{} --redirect-address 10.77.0.5", SCHEMES[0]);
    let mut first = server(&stage, &named);
    control.ip("addr del 10.77.0.5/32 dev eth0").unwrap();
    stage.until("it is told", |_| refused(&stage).is_some());
    let reason = refused(&stage).unwrap();
    assert!(
        reason.contains("lost its --redirect-address 10.77.0.5"),
        "{reason}"
    );
    control.ip("addr add 10.77.0.5/32 dev eth0").unwrap();
    stage.until("all is well", |_| refused(&stage).is_none());
    first.stop(PATIENCE).unwrap();

    let named = format!("{} --redirect-address 10.77.0.6", SCHEMES[0]);
    let _second = server(&stage, &named);
    let _target = stage.target(&format!("--bind {NODE}"));
    let _agent = agent(&stage);
    control.ip("addr del 10.77.0.6/32 dev lo").unwrap();
    served_soon(&stage, control);
}
