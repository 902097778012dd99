//! The server is killed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use culvert_tests::cluster::{Cluster, wait_until};
use culvert_tests::process;
use culvert_tests::until;

use super::Row;
use crate::clients::PATIENCE;
use crate::stage::Stage;

pub(crate) const KILLED: Row = Row {
    name: "after a SIGKILL of the server, nobody restarts it",
    meaning: "what stays of its iptables, and what a connect to port 10250 of a node's IP then meets. On a cluster without a tunnel: none, and network is \
              unreachable.",
    measure: killed,
    always: false,
};

pub(crate) const RESTARTED: Row = Row {
    name: "after a SIGKILL of the server, the kubelet restarts it: works again after",
    meaning: "from the kill to the first `kubectl logs` that succeeds; its administrator looks after it when a minute has passed.",
    measure: restarted,
    always: false,
};

fn killed(stage: &Stage) -> Result<String> {
    let cluster = &stage.cluster;
    let control = cluster.control_plane();
    cluster.stop(&Cluster::kubelet(control))?;
    let left = kill(stage).and_then(|()| left(stage));
    cluster.start_kubelet(control)?;
    left
}

fn kill(stage: &Stage) -> Result<()> {
    let pid = stage.tunnel.server(&stage.cluster)?;
    culvert_tests::command::run("kill", ["-KILL", &pid.to_string()])?;
    until("the server is gone", PATIENCE, || {
        Ok((!process::exists(pid)).then_some(()))
    })
}

fn left(stage: &Stage) -> Result<String> {
    let control = stage.cluster.control_plane();
    let rules = control.launch("iptables-save").words("-t nat");
    let rules = rules.start()?.succeed(PATIENCE)?;
    let rules = rules.lines().filter(|line| line.contains("TUNNEL")).count();
    // curl does not tell why it could not connect.
    let line = format!("exec 3<>/dev/tcp/{}/10250", stage.node_address());
    let started = Instant::now();
    let mut connect = control.launch("bash").arg("-c").arg(line).start()?;
    if connect.wait(PATIENCE)?.success() {
        bail!("a connect succeeds");
    }
    let seconds = started.elapsed().as_secs_f64();
    let said = connect.output();
    let cause = said.trim().rsplit(": ").next().context("no error")?;
    Ok(format!(
        "{rules} rules and chains of iptables; a connect: {cause} after {seconds:.1} s"
    ))
}

fn restarted(stage: &Stage) -> Result<String> {
    kill(stage)?;
    let since = Instant::now();
    let alone = wait_until("logs", Duration::from_mins(1), || {
        stage.last_line().map(Some)
    });
    if alone.is_ok() {
        return Ok(format!("{:.1} s", since.elapsed().as_secs_f64()));
    }
    let done = stage.settle()?;
    let seconds = since.elapsed().as_secs_f64();
    Ok(format!(
        "not within a minute; after {seconds:.0} s, {done} CSRs approved by hand"
    ))
}
