//! An agent that is replaced is back with the next session.

use std::time::{Duration, Instant};

use culvert_tests::cluster::{CULVERT_NAMESPACE, wait_until};
use culvert_tests::{scale, until};

use crate::dials::get;
use crate::pods;
use crate::stage::{PATIENCE, culvert, kill, processes};

/// From the kill to the next answer, most of which is the kubelet's: it looks once a second, and makes a container.
const AT_ONCE: Duration = Duration::from_secs(15);

#[test]
fn a_killed_agent_is_back_at_once() {
    let cluster = culvert();
    // Nobody else kills the agent of this edge: after a second crash within ten minutes the kubelet lets it wait.
    let edge = cluster.edge(1);
    let url = "http://10.78.0.12:10255/healthz";
    get(cluster, url).unwrap();
    let killed = processes(edge, "culvert");
    let started = Instant::now();
    kill(edge, "culvert");
    until("the agent is gone", PATIENCE, || {
        Ok((processes(edge, "culvert") != killed).then_some(()))
    })
    .unwrap();
    until("its successor carries", PATIENCE, || {
        get(cluster, url).map(Some)
    })
    .unwrap();
    let took = started.elapsed();
    eprintln!("the agent was back after {took:?}");
    assert!(took < scale::patience(AT_ONCE), "{took:?}");
}

#[test]
fn agents_of_a_rollout_carry_as_those_before_them() {
    let cluster = culvert();
    let restart = ["rollout", "restart", "-n", CULVERT_NAMESPACE];
    let words = restart.into_iter().chain(["daemonset/culvert-agent"]);
    cluster.kubectl(words).unwrap();
    cluster.wait_for_culvert().unwrap();
    pods::sleeping(cluster, "later", "edge-1");
    let logs = wait_until("logs", PATIENCE, || {
        cluster.kubectl(["logs", "later"]).map(Some)
    });
    assert!(logs.unwrap().contains("hello"));
    pods::delete(cluster, "later");
}
