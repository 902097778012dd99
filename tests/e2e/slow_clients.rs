//! Clients that connect in great numbers and never come to the point, at every port: they cost what they may, are
//! closed and counted, and are not felt by others.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use culvert_tests::report::{Held, parse};
use culvert_tests::{Daemon, Launch, NetNs, programs, scale, until};

use crate::http_frontend::{AGENT, HTTP, SERVER};
use crate::https::{HALF, HTTPS, curl, kubelet};
use crate::malformed::HOST;
use crate::stage::http::{Service, get};
use crate::stage::{OTHER, PATIENCE, Stage, end_of, open_files, resident_kib};

const AGENTS: &str = "10.77.0.1:10262";
/// The longest that one of them may stay, a head of the HTTP port, and what it takes to see that it has gone.
const STAY: u64 = 12;
/// The longest that one who behaves may be kept.
const SLOWEST: Duration = Duration::from_secs(3);

/// What the server may hold of clients that have not said yet what they want, by port: how many at most, and KiB of
/// each. A caller of the agent port costs what TLS has read of its hello; a client of the HTTPS port a task, for its
/// hello stays in the kernel; one of the HTTP port a buffer of 32 KiB, which may have grown by copies.
const HELD: [(&str, u64, u64); 3] = [
    (AGENTS, 1250, 24),
    (HTTPS, 2048 + 256, 16),
    (HTTP, 5120, 48),
];

#[test]
fn ten_thousand_slow_clients_of_each_port_cost_what_they_may_and_are_not_felt_by_others() {
    let stage = Stage::with_pod();
    let _kubelet = kubelet(&stage);
    let _echo = stage.target(&format!("--bind {OTHER}"));
    let _service = Service::start(&stage, "10.78.0.11:9100");
    let (server, _agent) = stage.culvert(&format!("{SERVER} --https-port 10263"), AGENT);
    let mut kept = stage.connect(HTTP);
    well_behaved(&stage, &mut kept);
    let (files, memory) = (open_files(&server), resident_kib(&server));

    // So many at once at the HTTP port, and three seconds' worth of them at the others.
    let (count, rate) = (
        scale::count(10_000, 1000, 1000),
        scale::count(1000, 250, 100),
    );
    let seconds = count / rate + STAY;
    let (control, pod) = (stage.control(), stage.lab().pod(0).namespace());
    let head = format!("GET / HTTP/1.1\r\n{HOST}X: ");
    let large = head.clone() + &"y".repeat(30 << 10);
    // To the HTTP port from another address than that of who behaves, whose idle connection would make room for more of
    // its own. The last say at once as much as a head may have.
    let floods = [
        slow(control, AGENTS, (count, rate), "--drip", HALF),
        slow(control, HTTPS, (count, rate), "--drip", HALF),
        slow(pod, HTTP, (count / 2, rate / 2), "--drip", &head),
        slow(pod, HTTP, (count / 2, rate / 2), "", &large),
    ];
    let most: u64 = HELD.iter().map(|(_, most, _)| count.min(*most)).sum();
    let most_kib: u64 = HELD
        .iter()
        .map(|(_, most, kib)| count.min(*most) * kib)
        .sum();
    let (mut slowest, mut grown, mut more) = (Duration::ZERO, 0, 0);
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        slowest = slowest.max(well_behaved(&stage, &mut kept));
        grown = grown.max(resident_kib(&server).saturating_sub(memory));
        more = more.max(open_files(&server).saturating_sub(files));
    }
    let floods =
        floods.map(|mut flood| -> Held { parse(&flood.succeed(PATIENCE).unwrap()).unwrap() });
    eprintln!("{floods:?}, {more} more files, {grown} KiB more, the slowest took {slowest:?}");
    assert!(slowest < scale::patience(SLOWEST), "{slowest:?}");
    assert!(grown < most_kib, "{grown} KiB more, of {most_kib}");
    let more = u64::try_from(more).unwrap();
    assert!(more <= most + 100, "{more} more files are open, of {most}");
    for flood in &floods {
        assert!(flood.opened >= count * 9 / 20, "{flood:?}");
        assert_eq!(flood.ended, flood.opened, "some may stay for ever");
    }
    let given_up = |series: &str| -> u64 {
        let reasons = ["too_slow", "evicted"].iter();
        let of = |reason| stage.metric(&format!("{series}reason=\"{reason}\"}}"));
        reasons.map(of).sum()
    };
    assert!(given_up("https_refusals_total{") >= floods[1].opened);
    let of_http = given_up("http_requests_total{code=\"4xx\",");
    assert!(of_http >= floods[2].opened + floods[3].opened, "{of_http}");
    gives_back(&server, files);
}

/// Clients that connect at a rate and never come to the point. What they say, they say a byte a second where `drip`
/// says so.
fn slow(from: &NetNs, to: &str, (count, rate): (u64, u64), drip: &str, say: &str) -> Daemon {
    let probe = Launch::new(from, programs::probe().unwrap());
    let seconds = count / rate + STAY + 1;
    let line =
        format!("hold --to {to} --rate {rate} --count {count} --seconds {seconds} {drip} --say");
    probe.words(&line).arg(say).start().unwrap()
}

/// One client of each port that does as it should; the time of the slowest.
fn well_behaved(stage: &Stage, kept: &mut TcpStream) -> Duration {
    let took = |work: &mut dyn FnMut()| {
        let began = Instant::now();
        work();
        began.elapsed()
    };
    let works = [
        took(&mut || drop(end_of(&curl(stage, stage.control())).unwrap())),
        took(&mut || assert_eq!(get(kept, "/", HOST.trim()).code, 200)),
        took(&mut || assert_eq!(get(&mut stage.connect(HTTP), "/", HOST.trim()).code, 200)),
        took(&mut || stage.works(OTHER)),
    ];
    works.into_iter().max().unwrap()
}

/// Waits until the server has as few descriptors as before.
pub(crate) fn gives_back(server: &Daemon, files: usize) {
    until("descriptors are given back", PATIENCE, || {
        Ok((open_files(server) <= files).then_some(()))
    })
    .unwrap();
}
