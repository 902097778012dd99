//! A server dies that carries what clients of the worker connect.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use culvert_tests::cluster::{AnotherServer, Cluster, wait_until};
use culvert_tests::{Daemon, scale};

use super::{CLIENT, worker};
use crate::second_server::{Balancer, until_agents_count, until_it_has_both_agents};
use crate::stage::{PATIENCE, kill, relayed_in};

/// As long as a client waits at most.
const OUTAGE: Duration = Duration::from_secs(3);
const AFTERWARDS: usize = 20;

/// A pod that asks a kubelet again and again without saying who it is, each time anew.
fn asking(cluster: &Cluster) -> Daemon {
    let curl =
        "curl -sk -o /dev/null --max-time 10 -w '%{http_code}\\n' https://10.78.0.11:10250/pods";
    let line = format!("while :; do {curl} || :; sleep 0.05; done");
    let kubectl = cluster.kubectl_launch().unwrap();
    kubectl
        .args(["exec", CLIENT, "--", "sh", "-c", &line])
        .start()
        .unwrap()
}

/// Connections that a server has carried for others.
fn answered(metrics: &str) -> Result<u64> {
    relayed_in(metrics, "answered").context("no such metric")
}

/// The longest that a client was without an answer, failed and slow connects alike, until all is well again.
fn longest_wait(answers: &Daemon) -> Duration {
    let began = Instant::now();
    let (mut seen, mut well, mut last, mut longest) = (0, 0, began, Duration::ZERO);
    while well < AFTERWARDS || began.elapsed() < OUTAGE {
        assert!(began.elapsed() < PATIENCE, "{}", answers.output());
        let said = answers.answer();
        let lines: Vec<_> = said.lines().collect();
        for line in &lines[seen..] {
            if *line == "401" {
                well += 1;
                longest = longest.max(last.elapsed());
                last = Instant::now();
            } else {
                well = 0;
            }
        }
        seen = lines.len();
        std::thread::sleep(Duration::from_millis(20));
    }
    longest
}

#[test]
fn when_the_server_dies_that_answers_another_does_in_less_than_three_seconds() {
    let cluster = worker().cluster;
    let second = AnotherServer::new(cluster).unwrap();
    let mut server = second.start().unwrap();
    let _balancer = Balancer::new(cluster);
    until_it_has_both_agents(&second);
    until_agents_count(cluster, 2);

    let counts = || -> Result<[u64; 2]> {
        Ok([
            answered(&cluster.culvert_metrics()?)?,
            answered(&second.metrics()?)?,
        ])
    };
    let before = counts().unwrap();
    let mut answers = asking(cluster);
    let first_answers = wait_until("one of them answers", PATIENCE, || {
        let now = counts()?;
        let grown = [0, 1].map(|one| now[one] - before[one]);
        Ok((grown.iter().sum::<u64>() > 5).then_some(grown[0] > grown[1]))
    })
    .unwrap();
    answers.forget_output();
    if first_answers {
        kill(cluster.control_plane(), "culvert");
    } else {
        server.kill().unwrap();
    }
    let outage = longest_wait(&answers);
    println!("of the first server: {first_answers}, longest wait {outage:?}");
    let said = answers.output();
    assert!(outage < scale::patience(OUTAGE), "{outage:?}: {said}");
    // It was not the same one, restarted.
    let other = usize::from(first_answers);
    let metrics = if first_answers {
        second.metrics()
    } else {
        cluster.culvert_metrics()
    };
    let now = answered(&metrics.unwrap()).unwrap();
    assert!(now > before[other], "{now}, as before");
    if first_answers {
        assert!(server.stop(PATIENCE).unwrap().success());
    }
    cluster.wait_for_culvert().unwrap();
    until_agents_count(cluster, 1);
}
