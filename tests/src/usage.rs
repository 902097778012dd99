//! What a process has used, as `/proc` tells it; `proc_pid_stat(5)`, `proc_pid_status(5)`.

use std::fs;

use crate::Daemon;
use anyhow::{Context as _, Result};

/// `/proc` counts processor time in hundredths of a second, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor time so far, in user space and in the kernel.
pub fn cpu_seconds(process: &Daemon) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid()))?;
    // The second field is the name in brackets, which may hold anything; utime is the 14th.
    let (_, fields) = stat.rsplit_once(") ").context("a name in brackets")?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<f64>);
    Ok(ticks.sum::<Result<f64, _>>()? / TICKS_PER_SECOND)
}

/// Resident memory in KiB.
pub fn resident_kib(process: &Daemon) -> Result<f64> {
    status(process, "VmRSS:")
}

/// The most resident memory that it has had so far, in KiB.
pub fn peak_kib(process: &Daemon) -> Result<f64> {
    status(process, "VmHWM:")
}

fn status(process: &Daemon, field: &'static str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context(field)?.parse()?)
}
