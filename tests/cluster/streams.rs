//! What lasts: followed logs, terminals, attached and forwarded connections, over WebSocket and over SPDY.

use culvert_tests::cluster::{Cluster, wait_until};
use culvert_tests::{Daemon, Launch, programs::Kubernetes};

use crate::pods;
use crate::stage::{PATIENCE, culvert};
use crate::tunnelled::Tunnelled;

/// kubectl's switch between the protocols of exec and port-forward, see
/// [KEP-4006](https://github.com/kubernetes/enhancements/issues/4006).
const PROTOCOLS: [(&str, &str); 2] = [("WebSocket", "true"), ("SPDY", "false")];
/// Each exec and each attach has a connection of its own, with a TLS handshake: 5 KB and more in all.
const HANDSHAKE: u64 = 2500;
const TICKS: &str = "i=0; while sleep 0.1; do i=$((i+1)); echo tick $i; done";

/// kubectl with one of the two protocols.
pub(crate) fn kubectl_over(cluster: &Cluster, websockets: &str) -> Launch {
    cluster
        .kubectl_launch()
        .unwrap()
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
}

fn start(launch: &Launch) -> Daemon {
    launch.start().unwrap()
}

/// What `seq` prints.
fn numbers(last: u32) -> String {
    let numbers: Vec<_> = (1..=last).map(|number| number.to_string()).collect();
    numbers.join("\n") + "\n"
}

#[test]
fn logs_of_an_edge_pod_are_whole_and_followed_as_they_come() {
    let cluster = culvert();
    let tunnelled = Tunnelled::now();
    pods::running(cluster, "talks", "edge-1", "seq 20000; sleep 1000");
    let mut logs = String::new();
    wait_until("all of the logs", PATIENCE, || {
        logs = cluster.kubectl(["logs", "talks"])?;
        Ok(logs.ends_with("\n20000\n").then_some(()))
    })
    .unwrap();
    let expected = numbers(20_000);
    assert_eq!(logs, expected);
    tunnelled.at_least(expected.len() as u64);

    pods::running(cluster, "ticks", "edge-2", TICKS);
    let kubectl = cluster.kubectl_launch().unwrap();
    let mut followed = start(&kubectl.words("logs -f ticks"));
    followed.wait_for_line("tick 30", PATIENCE).unwrap();
    assert!(followed.is_running());
    for pod in ["talks", "ticks"] {
        pods::delete(cluster, pod);
    }
}

/// Up to 1.35 the API server speaks SPDY with kubelets, whatever kubectl speaks with it. Kubelets of 1.36 and newer say
/// that they speak WebSocket ([KEP-4006](https://github.com/kubernetes/enhancements/issues/4006)), and the other tests
/// of this file go over that then.
#[test]
fn the_newest_kubelets_are_spoken_websocket_with() {
    let cluster = culvert();
    let node = cluster.get("node edge-1").unwrap();
    let features = node["status"]["declaredFeatures"].as_array();
    let speaks = features.is_some_and(|features| {
        let mut features = features.iter();
        features.any(|feature| feature == "ExtendWebSocketsToKubelet")
    });
    assert_eq!(speaks, Kubernetes::chosen().unwrap() == Kubernetes::Newest);
}

#[test]
fn exec_has_a_terminal_where_one_is_asked_for_and_an_exit_code() {
    let cluster = culvert();
    pods::sleeping(cluster, "shell", "edge-1");
    for (protocol, websockets) in PROTOCOLS {
        let kubectl = kubectl_over(cluster, websockets);
        let tunnelled = Tunnelled::now();
        let piped = kubectl
            .clone()
            .words("exec shell -- sh -c")
            .arg("tty; echo out; echo err >&2; exit 7");
        let mut piped = start(&piped);
        assert_eq!(piped.wait(PATIENCE).unwrap().code(), Some(7), "{protocol}");
        let said = piped.output();
        assert!(
            said.contains("not a tty") && said.contains("out") && said.contains("err"),
            "{said}"
        );
        tunnelled.at_least(HANDSHAKE);

        let tunnelled = Tunnelled::now();
        let mut typed = start(&in_terminal(&kubectl, "exec -it shell -- sh"));
        typed.wait_for_line("tty is /dev/pts/", PATIENCE).unwrap();
        let status = typed.wait(PATIENCE).unwrap();
        assert!(status.success(), "{protocol}: {status} {}", typed.output());
        tunnelled.at_least(HANDSHAKE);
    }
    pods::delete(cluster, "shell");
}

/// A person at a terminal who types two lines.
fn in_terminal(kubectl: &Launch, line: &str) -> Launch {
    let command = format!("{} {line}", kubectl.to_shell());
    let typing = "sleep 1; echo 'echo tty is $(tty)'; sleep 1; echo exit; sleep 1";
    kubectl.with_program("sh").arg("-c").arg(format!(
        "({typing}) | script --quiet --return --command '{command}' /dev/null"
    ))
}

#[test]
fn attach_reaches_the_process_that_runs() {
    let cluster = culvert();
    pods::running(cluster, "attached", "edge-2", TICKS);
    for (protocol, websockets) in PROTOCOLS {
        let kubectl = kubectl_over(cluster, websockets);
        let tunnelled = Tunnelled::now();
        let mut attached = start(&kubectl.words("attach attached"));
        attached.wait_for_line("tick ", PATIENCE).unwrap();
        assert!(attached.is_running(), "{protocol}: {}", attached.output());
        tunnelled.at_least(HANDSHAKE);
    }
    pods::delete(cluster, "attached");
}

#[test]
fn a_forwarded_port_serves_many_connections() {
    const FETCHES: u64 = 5;
    let cluster = culvert();
    let line = "seq 100000 >/tmp/numbers; cd /tmp; httpd -f -p 8080";
    pods::running(cluster, "serves", "edge-1", line);
    let expected = numbers(100_000);
    for (protocol, websockets) in PROTOCOLS {
        let kubectl = kubectl_over(cluster, websockets);
        let mut forward = start(&kubectl.words("port-forward pod/serves 18080:8080"));
        forward.wait_for_line("Forwarding from", PATIENCE).unwrap();
        let tunnelled = Tunnelled::now();
        for _ in 0..FETCHES {
            let curl = cluster.control_plane().launch("curl");
            let curl = curl.words("--silent --show-error --fail http://127.0.0.1:18080/numbers");
            let got = start(&curl).succeed(PATIENCE).unwrap();
            assert!(got == expected, "{protocol}: {} bytes", got.len());
        }
        tunnelled.at_least(FETCHES * expected.len() as u64);
        assert!(forward.is_running(), "{protocol}: {}", forward.output());
        forward.kill().unwrap();
    }
    pods::delete(cluster, "serves");
}
