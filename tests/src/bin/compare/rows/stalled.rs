//! One stopped reader beside everybody else.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use culvert_tests::cluster::wait_until;
use culvert_tests::{Daemon, Samples};
use rustix::process::Signal;

use super::Row;
use crate::clients::PATIENCE;
use crate::stage::{SUBJECT, Stage};

pub(crate) const READER: Row = Row {
    name: "20 `kubectl logs` beside one stalled `exec` reader",
    meaning: "somebody's `exec` with much output has stopped reading, at the same node. Each of 20 `kubectl logs` then has five seconds; the middle one's \
              time, next to that without the stalled one.",
    measure: reader,
    always: false,
};

const COUNT: usize = 20;

fn reader(stage: &Stage) -> Result<String> {
    let before = ask(stage);
    let stalled = stall(stage)?;
    let beside = ask(stage);
    drop(stalled);
    let (alone, late) = (before.median(), COUNT - beside.len());
    Ok(if beside.is_empty() {
        format!("**all {COUNT} time out** ({alone:.2} s without)")
    } else {
        let median = beside.median();
        format!("{late} time out, {median:.2} s ({alone:.2} s without)")
    })
}

/// Seconds of those that were answered.
fn ask(stage: &Stage) -> Answered {
    let mut seconds = Vec::new();
    for _ in 0..COUNT {
        let started = Instant::now();
        if stage.last_line().is_ok() {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    Answered(seconds)
}

struct Answered(Vec<f64>);

impl Answered {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn median(&self) -> f64 {
        self.0.iter().copied().collect::<Samples>().median()
    }
}

/// An exec whose kubectl is stopped, once the process in the pod has to wait with its output.
fn stall(stage: &Stage) -> Result<Daemon> {
    let word = format!("stalled-{}", std::process::id());
    let kubectl = stage.cluster.kubectl_launch()?;
    let mut exec = kubectl
        .words("exec")
        .arg(SUBJECT)
        .words("-- yes")
        .arg(&word)
        .start()?;
    exec.wait_for_line(&word, PATIENCE)?;
    exec.signal(Signal::STOP)?;
    let writer = writer(&word).context("no process writes in the pod")?;
    let mut last = 0;
    wait_until("the writer waits", PATIENCE, || {
        thread::sleep(Duration::from_secs(1));
        let now = bytes_written(writer)?;
        let same = now == std::mem::replace(&mut last, now);
        Ok(same.then_some(()))
    })?;
    Ok(exec)
}

/// The process that says this word again and again.
fn writer(word: &str) -> Option<u32> {
    let line = format!("yes\0{word}\0");
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid| {
        let said = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
        said.is_ok_and(|said| said == line)
    })
}

/// See `wchar` in `proc_pid_io(5)`.
fn bytes_written(pid: u32) -> Result<u64> {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    Ok(line.context("no wchar")?.parse()?)
}
