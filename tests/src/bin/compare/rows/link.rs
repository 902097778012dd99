//! A link that swallows everything.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::Row;
use crate::stage::{SUBJECT, Stage};

pub(crate) const BLACK_HOLE: Row = Row {
    name: "the edge's link is black-holed for 40 s: first failure, first success after",
    meaning: "the NAT drops every packet of the edge without a word. How long a `kubectl logs` that is started then waits for its failure, and how long after \
              the link is back one succeeds again (each of those has three seconds).",
    measure: black_hole,
    always: false,
};

const OUTAGE: Duration = Duration::from_secs(40);
const PATIENCE: Duration = Duration::from_mins(3);

fn black_hole(stage: &Stage) -> Result<String> {
    let lab = stage.cluster.lab();
    lab.black_hole(0)?;
    let cut = Instant::now();
    let failure = first_failure(stage, cut);
    thread::sleep(OUTAGE.saturating_sub(cut.elapsed()));
    lab.restore(0)?;
    let (failed, cause) = failure?;
    let back = Instant::now();
    while ask(stage, 3).is_err() {
        ensure!(back.elapsed() < PATIENCE, "not within {PATIENCE:?} after");
        thread::sleep(Duration::from_millis(50));
    }
    let success = back.elapsed().as_secs_f64();
    Ok(format!("{failed:.1} s ({cause}), {success:.1} s"))
}

/// Its time and its last words.
fn first_failure(stage: &Stage, since: Instant) -> Result<(f64, String)> {
    loop {
        if let Err(error) = ask(stage, 35) {
            let error = format!("{error:#}");
            let cause = error.trim().rsplit(": ").next().unwrap_or_default();
            let cause = cause.split(" (").next().unwrap_or_default();
            return Ok((since.elapsed().as_secs_f64(), cause.to_owned()));
        }
        ensure!(since.elapsed() < OUTAGE, "no request fails");
    }
}

fn ask(stage: &Stage, seconds: u32) -> Result<String> {
    let timeout = format!("--request-timeout={seconds}s");
    stage
        .cluster
        .kubectl(["logs", "--tail=1", &timeout, SUBJECT])
}
