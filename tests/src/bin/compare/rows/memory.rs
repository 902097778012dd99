//! Resident memory of server and agent.

use anyhow::{Context as _, Result};

use super::Row;
use crate::stage::Stage;

pub(crate) const IDLE: Row = Row {
    name: "resident memory after the installation: server, agent",
    meaning: "`VmRSS` with two edge nodes, after the first few `kubectl logs`.",
    measure: |stage| both(stage, "VmRSS"),
    always: false,
};

pub(crate) const MOST: Row = Row {
    name: "the most so far: server, agent",
    meaning: "`VmHWM` after all rows above.",
    measure: |stage| both(stage, "VmHWM"),
    always: false,
};

fn both(stage: &Stage, field: &str) -> Result<String> {
    let server = mebibytes(stage.tunnel.server(&stage.cluster)?, field)?;
    let agent = mebibytes(stage.tunnel.agent(&stage.cluster)?, field)?;
    Ok(format!("{server:.1} MiB, {agent:.1} MiB"))
}

fn mebibytes(pid: u32, field: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1));
    let kibibytes: f64 = kibibytes.context("a size")?.parse()?;
    Ok(kibibytes / 1024.0)
}
