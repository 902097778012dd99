//! File descriptors: a session takes one, and where a server has none left nobody hangs.

use std::time::{Duration, Instant};
use std::{fs, iter, thread};

use culvert_tests::Daemon;
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::stage::{NODE, PATIENCE, RESET, Stage, at_once, open_files};

/// Leaves the program so many descriptors more than it has; returns the limit.
fn leave_descriptors(program: &Daemon, more: u64) -> u64 {
    let limit = u64::try_from(open_files(program)).unwrap() + more;
    let pid = Pid::from_raw(program.pid().try_into().unwrap());
    let limits = Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    prlimit(pid, Resource::Nofile, limits).unwrap();
    limit
}

/// Time on the processors up to now.
fn processor_time(program: &Daemon) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", program.pid())).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<_> = rest.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[test]
fn clients_without_a_descriptor_for_them_are_reset_at_once_and_soon_are_not_captured() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let (mut server, _agent) = stage.culvert("", "");
    let limit = leave_descriptors(&server, 10);
    let (began, used_before) = (Instant::now(), processor_time(&server));
    let line = format!("connect --to {NODE} --count 30 --hold-seconds 300");
    let mut crowd = stage.probe(stage.control(), &line).start().unwrap();
    crowd.wait_for_line("holding", PATIENCE).unwrap();

    let (end, took) = stage.try_once(NODE);
    let end = end.expect("nobody can be served");
    let expected = RESET.contains(&end.as_str()) || end == "connect ENETUNREACH";
    assert!(expected && took < at_once(), "{end} after {took:?}");
    let line = server
        .wait_for_line("connects are no longer redirected", PATIENCE)
        .unwrap();
    for part in [
        "cannot accept clients: too many open files",
        &format!("(limit {limit})"),
        "LimitNOFILE",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    stage.eventually_fails(NODE, "connect ENETUNREACH");
    let used = processor_time(&server).saturating_sub(used_before);
    assert!(used < began.elapsed() / 2, "{used:?} of a processor");

    crowd.kill().unwrap();
    stage.eventually_works(NODE);
    stage.until("the server is ready again", |status| {
        status.conditions.iter().all(|condition| condition.ready)
    });
    let output = server.output();
    let told = output.matches("connects are no longer redirected").count();
    assert_eq!(told, 1, "{output}");
    assert!(!output.contains("do not arrive"), "{output}");
}

/// What the program has open for longer than a moment: those who ask for its status come and go.
fn lasting_files(program: &Daemon) -> usize {
    let looks = iter::repeat_with(|| {
        thread::sleep(Duration::from_millis(20));
        open_files(program)
    });
    looks.take(50).min().unwrap()
}

#[test]
fn a_session_takes_one_descriptor_of_either_end() {
    let stage = Stage::with_edges(2);
    let (server, agent) = stage.culvert("", "");
    let with_one = lasting_files(&server);
    let with_another = stage.agent(1, "");
    assert_eq!(lasting_files(&server), with_one + 1);
    assert_eq!(lasting_files(&agent), lasting_files(&with_another));

    drop(server);
    let without = lasting_files(&agent);
    let _server = stage.server("");
    stage.until_connected(0, true);
    assert_eq!(lasting_files(&agent), without + 1);
}
