//! What people do with pods all day.

use anyhow::Result;
use culvert_tests::Launch;

use super::Row;
use crate::clients::{PATIENCE, PROTOCOLS, curl, expect, kubectl_over};
use crate::stage::{SUBJECT, Stage};

const WORKS: &str = "works";

const fn row(
    name: &'static str,
    meaning: &'static str,
    measure: fn(&Stage) -> Result<String>,
) -> Row {
    Row {
        name,
        meaning,
        measure,
        always: false,
    }
}

pub(crate) const LOGS: Row = row("`logs`", "twenty thousand lines, each of them there.", logs);
pub(crate) const FOLLOW: Row = row(
    "`logs -f`",
    "new lines come while they are said, for three seconds.",
    follow,
);
pub(crate) const EXEC: Row = row(
    "`exec`: WebSocket, SPDY",
    "output on both streams and the exit code, with either of kubectl's protocols.",
    exec,
);
pub(crate) const TERMINAL: Row = row(
    "`exec -it`",
    "a shell on a terminal of its own, with either protocol.",
    terminal,
);
pub(crate) const ATTACH: Row = row(
    "`attach`",
    "output of the pod's own process, with either protocol.",
    attach,
);
pub(crate) const PORT_FORWARD: Row = row(
    "`port-forward`",
    "five downloads of a file of 589 kB through it, with either protocol.",
    port_forward,
);

fn logs(stage: &Stage) -> Result<String> {
    let said = stage.cluster.kubectl(["logs", SUBJECT])?;
    let expected = numbers(20_000);
    expect(said.starts_with(&expected), &said)?;
    Ok(WORKS.into())
}

fn follow(stage: &Stage) -> Result<String> {
    let kubectl = stage.cluster.kubectl_launch()?;
    let mut followed = kubectl.words("logs -f --tail=1").arg(SUBJECT).start()?;
    let first = followed.wait_for_line("tick", PATIENCE)?;
    let first: u32 = first.trim_start_matches("tick ").trim().parse()?;
    followed.wait_for_line(&format!("tick {}", first + 30), PATIENCE)?;
    expect(followed.is_running(), &followed.output())?;
    Ok(WORKS.into())
}

fn exec(stage: &Stage) -> Result<String> {
    over_both(stage, |kubectl| {
        let line = "echo out; echo err >&2; exit 7";
        let kubectl = kubectl.words("exec").arg(SUBJECT).words("-- sh -c");
        let mut exec = kubectl.arg(line).start()?;
        let code = exec.wait(PATIENCE)?.code();
        let said = exec.output();
        let whole = said.contains("out") && said.contains("err");
        expect(whole && code == Some(7), &said)
    })
}

/// A person at a terminal who types two lines.
fn terminal(stage: &Stage) -> Result<String> {
    over_both(stage, |kubectl| {
        let command = format!("{} exec -it {SUBJECT} -- sh", kubectl.to_shell());
        let typing = "sleep 2; echo 'echo tty is $(tty)'; sleep 2; echo exit; sleep 2";
        let mut typed = kubectl
            .with_program("sh")
            .arg("-c")
            .arg(format!(
                "({typing}) | script --quiet --return --command '{command}' /dev/null"
            ))
            .start()?;
        typed.wait_for_line("tty is /dev/pts/", PATIENCE)?;
        let status = typed.wait(PATIENCE)?;
        expect(status.success(), &typed.output())
    })
}

fn attach(stage: &Stage) -> Result<String> {
    over_both(stage, |kubectl| {
        let mut attached = kubectl.words("attach").arg(SUBJECT).start()?;
        attached.wait_for_line("tick ", PATIENCE)?;
        expect(attached.is_running(), &attached.output())
    })
}

fn port_forward(stage: &Stage) -> Result<String> {
    let expected = numbers(100_000);
    over_both(stage, |kubectl| {
        let mut forward = kubectl
            .arg("port-forward")
            .arg(SUBJECT)
            .arg("18080:8080")
            .start()?;
        forward.wait_for_line("Forwarding from", PATIENCE)?;
        for _ in 0..5 {
            let curl = curl(stage, "--fail http://127.0.0.1:18080/numbers");
            let got = curl.start()?.succeed(PATIENCE)?;
            expect(got == expected, &got)?;
        }
        forward.kill().map(drop)
    })
}

/// What `seq` says.
fn numbers(last: u32) -> String {
    let lines: Vec<_> = (1..=last).map(|number| number.to_string()).collect();
    lines.join("\n") + "\n"
}

fn over_both(stage: &Stage, act: impl Fn(Launch) -> Result<()>) -> Result<String> {
    for (protocol, websockets) in PROTOCOLS {
        act(kubectl_over(stage, websockets)?)
            .map_err(|error| error.context(format!("over {protocol}")))?;
    }
    Ok(WORKS.into())
}
