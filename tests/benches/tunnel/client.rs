//! The clients that measure: each runs on the control plane and prints one report.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args as ClapArgs, Subcommand};
use culvert_tests::Samples;
use serde::{Deserialize, Serialize};
use socket2::Socket;

use crate::{
    transfer::{self, Direction},
    wire::To,
};

#[derive(ClapArgs)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Connects and echoes one byte, over and over
    Latency { to: To, count: usize },
    /// Opens connections, echoes one byte on each, and keeps them open
    Idle { to: To, count: u32 },
    /// Receives, or sends
    Transfer {
        direction: Direction,
        to: To,
        bytes: usize,
        /// At the same time, so many bytes on each
        #[arg(default_value_t = 1)]
        connections: usize,
    },
}

/// Of `latency`: microseconds from the start of the connect to the byte's return.
#[derive(Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Said by `idle` when all are open.
pub(crate) const HOLDING: &str = "holding";
/// The longest that `idle` waits to be ended.
const HOLD: Duration = Duration::from_mins(1);

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Latency { to, count } => print(&latency(to, *count)?),
        What::Idle { to, count } => idle(to, *count),
        What::Transfer {
            direction,
            to,
            bytes,
            connections,
        } => print(&transfer::run(*direction, to, *bytes, *connections)?),
    }
}

fn print(report: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}

fn latency(to: &To, count: usize) -> Result<Latency> {
    let mut trips = Vec::with_capacity(count);
    for number in 0..count {
        let started = Instant::now();
        let mut stream = to.open()?;
        echo(&mut stream).with_context(|| format!("connection {number}"))?;
        trips.push(started.elapsed().as_secs_f64() * 1e6);
        // The close is over before the next begins.
        stream.shutdown(Shutdown::Write)?;
        ensure!(stream.read(&mut [0])? == 0, "more came back than was sent");
    }
    let trips = Samples::from_iter(trips);
    Ok(Latency {
        p50_us: trips.median(),
        p99_us: trips.percentile(99),
    })
}

fn idle(to: &To, count: u32) -> Result<()> {
    let mut held = Vec::new();
    for number in 0..count {
        let mut stream = to.open().with_context(|| format!("connection {number}"))?;
        echo(&mut stream).with_context(|| format!("connection {number}"))?;
        held.push(stream);
    }
    println!("{HOLDING}");
    thread::sleep(HOLD);
    Ok(())
}

fn echo(stream: &mut Socket) -> Result<()> {
    let mut byte = [0x2a];
    stream.write_all(&byte).context("send")?;
    stream.read_exact(&mut byte).context("receive")?;
    ensure!(byte == [0x2a], "another byte came back");
    Ok(())
}
