//! What a session meets in months: connections of every ending, more than any library counts by default.

use culvert_tests::report::Connects;
use culvert_tests::{scale, until};

use crate::dialling::swallow;
use crate::stage::{NODE, OTHER, PATIENCE, Stage, open_files, resident_kib};

/// Nobody listens here.
const CLOSED: &str = "10.78.0.11:10256";
const THREADS: u64 = 4;
/// What the program may keep of thousands of connections.
const KEPT_KIB: u64 = 16 * 1024;

/// A fifth of the connections ends in each way.
fn churn(stage: &Stage, connections: u64) {
    let each = connections / 5 / THREADS;
    for (to, ending) in [
        (NODE, ""),
        (NODE, "--reset"),
        (NODE, "--reset --no-echo"),
        (CLOSED, ""),
        (OTHER, "--reset --no-echo"),
    ] {
        let line =
            format!("flood --to {to} {ending} --count {each} --threads {THREADS} --seconds 100");
        let report: Connects = stage.report(&line);
        let failed: u64 = report.failed.values().sum();
        assert_eq!(
            report.succeeded + failed,
            each * THREADS,
            "{line}: {report:?}"
        );
        assert_eq!(failed == 0, to != CLOSED, "{line}: {report:?}");
    }
}

#[test]
fn a_session_outlives_connections_of_every_ending_and_keeps_nothing_of_them() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let ports = "--ports 10256 --dial-timeout 1s";
    let (server, agent) = stage.culvert(ports, "--allow-ports 10256");
    swallow(&stage, 10255);
    churn(&stage, 1000);
    let programs = [&server, &agent];
    let kept = || programs.map(|program| (open_files(program), resident_kib(program)));
    let none_is_open = || {
        until("no connection is open", PATIENCE, || {
            let open = stage.status().sessions[0].open_connections;
            Ok((open == 0).then_some(()))
        })
        .unwrap();
    };
    none_is_open();
    let before = kept();

    churn(&stage, scale::count(100_000, 5_000, 1_000));
    none_is_open();
    until("all is given back", PATIENCE, || {
        let after = kept();
        eprintln!("descriptors and KiB: {before:?}, {after:?}");
        let mut pairs = before.into_iter().zip(after);
        let is_so = pairs.all(|((files_before, kib_before), (files, kib))| {
            files <= files_before + 8 && kib <= kib_before + KEPT_KIB
        });
        Ok(is_so.then_some(()))
    })
    .unwrap();
    stage.works(NODE);
    for program in programs {
        let said = program.output();
        assert!(!said.contains("session ended"), "{said}");
    }
}
