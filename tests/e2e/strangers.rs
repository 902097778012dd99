//! Those who have proved nothing, in great numbers: nobody else suffers, and nothing fills up.

use std::fs;
use std::time::Duration;

use culvert_tests::report::{Held, parse};
use culvert_tests::{Daemon, Launch, NetNs, programs, scale, until};

use crate::stage::{PATIENCE, Stage, end_of, node, open_files, over_long_link, without_token};

/// A server that may have few descriptors has few places for strangers.
const FEW: &str = "prlimit --nofile=1024:1024 --";

fn probe(namespace: &NetNs, line: &str) -> Launch {
    Launch::new(namespace, programs::probe().unwrap()).words(line)
}

fn report(mut program: Daemon) -> Held {
    parse(&program.succeed(PATIENCE).unwrap()).unwrap()
}

#[test]
fn connections_that_say_nothing_keep_no_agent_out_that_is_far_away() {
    let stage = Stage::new();
    let server = stage.site.server();
    let mut words = FEW.split(' ');
    let few = server.with_program(words.next().unwrap()).args(words);
    let _server = stage.ready(&few.words(&server.to_shell()));
    // 100 ms each way: what an agent says first comes long after its connection.
    let _link = stage.long_link(100);
    let mut agent = stage.up(0, &over_long_link(&stage.token(0, "")));
    agent.stop(PATIENCE).unwrap();

    let rate = scale::count(3600, 3600, 400);
    let flood = format!("hold --to 10.77.0.1:10262 --rate {rate} --seconds 12");
    // From another address than the agent's, which is that of its NAT.
    let strangers = probe(stage.control(), &flood).start().unwrap();
    let mut agent = stage
        .site
        .agent(0, &over_long_link(&without_token(0)))
        .start()
        .unwrap();
    let within = scale::patience(Duration::from_secs(10));
    agent.wait_for_line("session established", within).unwrap();
    let strangers = report(strangers);
    eprintln!("{strangers:?}");
    assert!(strangers.opened > rate * 5, "{strangers:?}");
    stage.until_connected(0, true);
}

#[test]
fn half_requests_at_the_metrics_port_are_few_at_a_time_and_keep_no_probe_waiting() {
    let stage = Stage::new();
    let (server, agent) = stage.culvert("", "");
    let count = scale::count(3000, 3000, 300);
    for (program, namespace, port) in [
        (&server, stage.control(), 10265),
        (&agent, stage.edge(), 10266),
    ] {
        let before = open_files(program);
        let line = format!(
            "hold --to 127.0.0.1:{port} --rate 3000 --count {count} --seconds 12 --say GET"
        );
        let idle = probe(namespace, &line).start().unwrap();
        let healthz = Launch::new(namespace, "curl")
            .words("-sSf --max-time 5 --noproxy *")
            .arg(format!("http://127.0.0.1:{port}/healthz"));
        for _ in 0..20 {
            assert_eq!(end_of(&healthz), Ok("ok\n".to_owned()));
            let held = open_files(program).saturating_sub(before);
            assert!(held <= 100, "{held} more files are open");
        }
        let idle = report(idle);
        eprintln!("{port}: {idle:?}");
        assert!(idle.opened >= count * 9 / 10, "{idle:?}");
        assert_eq!(idle.ended, idle.opened, "some may stay for ever");
    }
}

#[test]
fn a_stranger_that_asks_for_certificates_over_and_over_does_not_fill_the_log() {
    let stage = Stage::new();
    let mut server = stage.server("");
    // A token that is none, and a node: fields 1 and 4 of the request.
    let mut message = b"\x0a\x01x\x22".to_vec();
    message.push(u8::try_from(node(0).len()).unwrap());
    message.extend(node(0).into_bytes());
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let path = stage.path("message");
    fs::write(&path, [&[0][..], &length, &message].concat()).unwrap();
    // As many calls as one connection may make.
    let curl = Launch::new(stage.edge(), "curl")
        .words("-ksS --http2 --max-time 20 --noproxy * -X POST")
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
        .arg("--data-binary")
        .arg(format!("@{}", path.display()))
        .arg("https://10.77.0.1:10262/culvert.v1.Enrolment/Enrol?[1-15]");
    for _ in 0..10 {
        end_of(&curl).unwrap();
    }
    server
        .wait_for_line("too many lines of this kind", PATIENCE)
        .unwrap();
    let lines = server.output();
    let refused = lines
        .lines()
        .filter(|line| line.contains("refused a certificate") && line.contains("peer="));
    let refused = refused.count();
    assert!(
        (1..=40).contains(&refused),
        "{refused} lines of 150 refusals"
    );
    until("the server answers", PATIENCE, || {
        stage.site.status().map(Some)
    })
    .unwrap();
}
