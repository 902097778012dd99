//! Two hundred megabytes.

use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use culvert_tests::Samples;
use sha2::{Digest as _, Sha256};

use super::Row;
use crate::clients::{expect, shell, timed};
use crate::stage::{SUBJECT, Stage};

const MIB: usize = 1 << 20;
const SIZE: usize = 200 * MIB;
const TIMES: usize = 5;

pub(crate) const COPY: Row = Row {
    name: "`cp` of 200 MiB: there, back",
    meaning: "random bytes, the same by their hash at the end, and the seconds of each way.",
    measure: copy,
    always: false,
};

pub(crate) const OUT: Row = Row {
    name: "`exec`, 200 MiB out",
    meaning: "`dd` in the pod, counted where kubectl is: the middle one of five times (the quickest to the slowest). The same from a pod of the \
              control plane's own node, which no tunnel carries, tells what the cluster itself does.",
    measure: out,
    always: false,
};

fn copy(stage: &Stage) -> Result<String> {
    let root = stage.cluster.directory().root();
    let (there, back) = (root.join("there"), root.join("back"));
    let sent = random_file(&there)?;
    let kubectl = stage.cluster.kubectl_launch()?.words("cp --retries=0");
    let inside = format!("{SUBJECT}:/tmp/file");
    let (_, up) = timed(&kubectl.clone().arg(&there).arg(&inside))?;
    let (_, down) = timed(&kubectl.arg(&inside).arg(&back))?;
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(&back)?, &mut hash)?;
    let arrived = hex::encode(hash.finalize());
    for path in [there, back] {
        fs::remove_file(path)?;
    }
    expect(arrived == sent, "another hash")?;
    Ok(format!("{up:.1} s, {down:.1} s"))
}

fn random_file(path: &Path) -> Result<String> {
    let mut file = File::create(path)?;
    let mut hash = Sha256::new();
    let mut block = vec![0; MIB];
    for _ in 0..SIZE / MIB {
        rand::fill(&mut block[..]);
        file.write_all(&block)?;
        hash.update(&block);
    }
    Ok(hex::encode(hash.finalize()))
}

fn out(stage: &Stage) -> Result<String> {
    let through = Takes::from(stage, SUBJECT)?;
    let near = "near";
    stage
        .cluster
        .run_pod(near, "control-plane", "sleep 100000", false)?;
    let without = Takes::from(stage, near);
    stage.cluster.delete_pod(near)?;
    Ok(format!("{through}; without a tunnel {}", without?))
}

/// What was taken from a pod, several times.
struct Takes {
    seconds: Samples,
    incomplete: usize,
}

impl Takes {
    fn from(stage: &Stage, pod: &str) -> Result<Self> {
        let kubectl = stage.cluster.kubectl_launch()?;
        let count = SIZE / MIB;
        let line = format!(
            "{} exec {pod} -- dd if=/dev/zero bs=1M count={count} 2>/dev/null | wc -c",
            kubectl.to_shell()
        );
        let mut seconds = Vec::new();
        let mut incomplete = 0;
        for _ in 0..TIMES {
            let (counted, took) = timed(&shell(&kubectl, &line))?;
            seconds.push(took);
            incomplete += usize::from(counted.trim() != SIZE.to_string());
        }
        Ok(Self {
            seconds: Samples::from_iter(seconds),
            incomplete,
        })
    }
}

impl fmt::Display for Takes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |percent| self.seconds.percentile(percent);
        write!(
            formatter,
            "{:.1} s ({:.1} to {:.1})",
            at(50),
            at(0),
            at(100)
        )?;
        match self.incomplete {
            0 => Ok(()),
            some => write!(formatter, ", **{some} of {TIMES} incomplete**"),
        }
    }
}
