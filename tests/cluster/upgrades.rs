//! What a new server, and a new certificate, mean to those who are connected: nothing.

use culvert_tests::cluster::{CULVERT_NAMESPACE, Cluster, wait_until};
use culvert_tests::report::{Connects, parse};
use culvert_tests::{Daemon, programs, scale, until};
use rustix::process::Signal;

use crate::dials::{echo, is_not_captured};
use crate::objects::Ports;
use crate::pods;
use crate::stage::{PATIENCE, culvert};

const TICKS: &str = "i=0; while sleep 0.1; do i=$((i+1)); echo tick $i; done";

#[test]
fn no_connect_fails_and_no_stream_is_cut_while_the_server_is_replaced() {
    let cluster = culvert();
    let _echo = echo(cluster, "10.78.0.11:9100");
    let _ports = Ports::new(cluster, &[("http-proxy-ports", "9100")]);
    until("the port is tunnelled", PATIENCE, || {
        Ok((!is_not_captured(cluster, "10.78.0.11:9100")).then_some(()))
    })
    .unwrap();
    pods::running(cluster, "followed", "edge-2", TICKS);
    let mut logs = cluster
        .kubectl_launch()
        .unwrap()
        .words("logs -f followed")
        .start()
        .unwrap();
    logs.wait_for_line("tick 10", PATIENCE).unwrap();
    let mut flood = flood(cluster);
    for _ in 0..scale::count(3, 1, 1) {
        restart(cluster, "culvert-server");
    }
    // The stream of before goes on through the server that was replaced.
    logs.forget_output();
    logs.wait_for_line("tick ", PATIENCE).unwrap();
    assert!(logs.is_running(), "{}", logs.output());
    flood.signal(Signal::TERM).unwrap();
    let report: Connects = parse(&flood.succeed(PATIENCE).unwrap()).unwrap();
    assert_eq!(report.failures(), 0, "{report:?}");
    assert!(report.succeeded > 100, "{report:?}");
    logs.kill().unwrap();
    pods::delete(cluster, "followed");
}

fn flood(cluster: &Cluster) -> Daemon {
    let flood = cluster.control_plane().launch(programs::probe().unwrap());
    let flags = "flood --to 10.78.0.11:9100 --seconds 900 --threads 4 --pause-ms 5";
    flood.words(flags).start().unwrap()
}

fn restart(cluster: &Cluster, daemon_set: &str) {
    let name = format!("daemonset/{daemon_set}");
    let words = ["rollout", "restart", "-n", CULVERT_NAMESPACE, &name];
    cluster.kubectl(words).unwrap();
    cluster.wait_for_culvert().unwrap();
}

#[test]
fn a_restarted_agent_is_back_at_once() {
    let cluster = culvert();
    restart(cluster, "culvert-agent");
    pods::sleeping(cluster, "later", "edge-1");
    let logs = wait_until("logs", PATIENCE, || {
        cluster.kubectl(["logs", "later"]).map(Some)
    });
    assert!(logs.unwrap().contains("hello"));
    pods::delete(cluster, "later");
}

#[test]
fn a_certificate_is_replaced_under_an_open_exec() {
    let cluster = culvert();
    let before = server_certificate(cluster);
    pods::sleeping(cluster, "kept", "edge-1");
    let exec = cluster.kubectl_launch().unwrap();
    let mut exec = exec.words("exec kept -- sh -c").arg(TICKS).start().unwrap();
    exec.wait_for_line("tick 5", PATIENCE).unwrap();
    // Another name for the servers is another certificate.
    annotate(
        "x-tunnel-server-external-addr=10.77.0.1:31008,culvert.example:10262",
        cluster,
    );
    let renewed = wait_until("a new certificate", PATIENCE, || {
        let now = server_certificate(cluster);
        Ok((now != before).then_some(now))
    });
    renewed.unwrap();
    exec.forget_output();
    exec.wait_for_line("tick ", PATIENCE).unwrap();
    assert!(exec.is_running(), "{}", exec.output());
    exec.kill().unwrap();
    annotate("x-tunnel-server-external-addr-", cluster);
    pods::delete(cluster, "kept");
}

fn annotate(annotation: &str, cluster: &Cluster) {
    let service = "service/x-tunnel-server-svc";
    let words = ["annotate", "-n", CULVERT_NAMESPACE, service, annotation];
    cluster.kubectl(words).unwrap();
}

/// When the server's certificate was issued.
fn server_certificate(cluster: &Cluster) -> String {
    let status = cluster.culvert_status().unwrap();
    let certificates = status["certificates"].as_array().unwrap();
    let server = certificates
        .iter()
        .find(|certificate| certificate["name"] == "server");
    let valid_from = &server.unwrap()["valid_from"];
    valid_from.as_str().unwrap().to_owned()
}
