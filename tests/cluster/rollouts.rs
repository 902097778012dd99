//! `kubectl rollout restart` of the server: the pods of an upgrade overlap, and nobody notices.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use culvert_tests::cluster::{CULVERT_NAMESPACE, Cluster, wait_until};
use culvert_tests::report::{Connects, parse};
use culvert_tests::{Daemon, programs, scale};
use rustix::process::Signal;
use serde_json::Value;

use crate::pods;
use crate::stage::{PATIENCE, culvert, metric};

/// 200 lines a second, each with its number.
const NUMBERED: &str = "n=0; while sleep 0.1; do to=$((n+20)); \
    while [ $n -lt $to ]; do n=$((n+1)); echo line $n of a log that is followed for minutes; done; done";

/// A pod of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServerPod {
    ready: bool,
    pub(crate) leaving: bool,
    restarts: u64,
}

#[test]
fn no_connection_fails_and_followed_logs_are_whole_while_the_server_is_replaced_twice() {
    let cluster = culvert();
    pods::running(cluster, "followed", "edge-2", NUMBERED);
    let before = server_pods(cluster);
    let first = the_only(&before);
    let file = cluster.directory().root().join("followed");
    let mut logs = follow(cluster, &file);
    let captured_before = captured();
    let mut flood = flood(cluster);
    flood.wait_for_line("flooding", PATIENCE).unwrap();

    let second = replace(cluster, &[&first]);
    let third = replace(cluster, &[&first, &second]);
    // Only the first server carries something: the second one may go at once.
    let gone = |pod: &str| !server_pods(cluster).contains_key(pod);
    wait_until("the second server has ended", PATIENCE, || {
        Ok(gone(&second).then_some(()))
    })
    .unwrap();
    let began = Instant::now();
    let length = Duration::from_secs(scale::count(180, 120, 20));
    while began.elapsed() < length {
        assert!(logs.is_running(), "{}", logs.output());
        thread::sleep(Duration::from_secs(1));
    }
    flood.signal(Signal::TERM).unwrap();
    let report: Connects = parse(&flood.succeed(PATIENCE).unwrap()).unwrap();
    eprintln!("{report:?}");
    assert_eq!(report.failures(), 0, "{report:?}");
    let per_second = report.succeeded / length.as_secs();
    assert!(per_second >= scale::count(100, 100, 10), "{report:?}");
    assert!(captured() - captured_before >= report.succeeded);

    let pods = server_pods(cluster);
    assert!(pods[&first].leaving, "the first server still drains");
    // Other tests may have killed the first one.
    let killed = before[&first].restarts;
    let restarts: u64 = pods.values().map(|pod| pod.restarts).sum();
    assert_eq!(restarts, killed, "{pods:?}");
    let lines = lines_of(&file);
    assert!(lines > 100 * length.as_secs(), "{lines}");
    logs.kill().unwrap();
    // The API server keeps its connection to a kubelet for 90 seconds after the last use; the kubelet ends it now.
    cluster.stop(&Cluster::kubelet(cluster.edge(1))).unwrap();
    cluster.start_kubelet(cluster.edge(1)).unwrap();
    wait_until("the first server has ended", PATIENCE, || {
        Ok(gone(&first).then_some(()))
    })
    .unwrap();
    assert_eq!(the_only(&server_pods(cluster)), third);
    cluster.wait_for_culvert().unwrap();
    pods::delete(cluster, "followed");
}

/// The whole log goes into a file: nobody wants to read it.
fn follow(cluster: &Cluster, file: &Path) -> Daemon {
    let kubectl = cluster.kubectl_launch().unwrap();
    let line = format!(
        "exec {} logs -f followed >{}",
        kubectl.to_shell(),
        file.display()
    );
    let logs = kubectl
        .with_program("sh")
        .arg("-c")
        .arg(line)
        .start()
        .unwrap();
    wait_until("the log is followed", PATIENCE, || {
        Ok((fs::metadata(file)?.len() > 1000).then_some(()))
    })
    .unwrap();
    logs
}

/// New connections to a kubelet, a request on each.
fn flood(cluster: &Cluster) -> Daemon {
    let probe = cluster.control_plane().launch(programs::probe().unwrap());
    let flags =
        "flood --to 10.78.0.11:10255 --http /healthz --seconds 900 --threads 4 --pause-ms 10";
    probe.words(flags).start().unwrap()
}

/// Asks for another pod of the server, waits until it works, and returns its name.
pub(crate) fn replace(cluster: &Cluster, before: &[&str]) -> String {
    let server = ["rollout", "restart", "-n", CULVERT_NAMESPACE];
    let server = server.into_iter().chain(["daemonset/culvert-server"]);
    cluster.kubectl(server).unwrap();
    wait_until("the new server works, the old one leaves", PATIENCE, || {
        let pods = server_pods(cluster);
        let newer = |(name, pod): &(&String, &ServerPod)| {
            pod.ready && !pod.leaving && !before.contains(&name.as_str())
        };
        let new = pods.iter().find(newer).map(|(name, _)| name.clone());
        let old_leave = before
            .iter()
            .all(|old| pods.get(*old).is_none_or(|old| old.leaving));
        Ok(new.filter(|_| old_leave))
    })
    .unwrap()
}

/// Connections that a server got from the kernel, by either scheme; the counts outlive servers.
fn captured() -> u64 {
    let events = ["steered", "handed_over"];
    let count = |event| format!("culvert_server_redirect_events_total{{event=\"{event}\"}}");
    events.map(|event| metric(&count(event))).into_iter().sum()
}

pub(crate) fn server_pods(cluster: &Cluster) -> BTreeMap<String, ServerPod> {
    let selector = "-l app.kubernetes.io/name=culvert-server";
    let pods = cluster.get(&format!("pods -n {CULVERT_NAMESPACE} {selector}"));
    let pods = pods.unwrap();
    let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
    let pods = pods["items"].as_array().unwrap().iter();
    pods.map(|pod| (name(pod), ServerPod::read(pod))).collect()
}

fn the_only(pods: &BTreeMap<String, ServerPod>) -> String {
    assert_eq!(pods.len(), 1, "{pods:?}");
    pods.keys().next().unwrap().clone()
}

impl ServerPod {
    fn read(pod: &Value) -> Self {
        let container = &pod["status"]["containerStatuses"][0];
        Self {
            ready: container["ready"] == true,
            leaving: !pod["metadata"]["deletionTimestamp"].is_null(),
            restarts: container["restartCount"].as_u64().unwrap_or_default(),
        }
    }
}

/// How many lines have come: every one from the first to the last, in order.
fn lines_of(file: &Path) -> u64 {
    let said = fs::read_to_string(file).unwrap();
    let (whole, _unfinished) = said.rsplit_once('\n').unwrap();
    let mut number = 0;
    for line in whole.lines() {
        number += 1;
        assert_eq!(
            line,
            format!("line {number} of a log that is followed for minutes")
        );
    }
    number
}
