//! The whole path, client to target through server and agent, next to a direct TCP connection
//! between the same two networks over the same wires.
//!
//! ```text
//! client ── redirect ── server ═══ NAT ═══ agent ── target     10.78.0.11
//! client ───────────────────────── NAT ──────────── target     10.78.1.11
//! ```
//! All of it shares the processors of one machine: ratios mean something, absolute figures little.

mod client;
mod deployment;
mod links;
mod memory;
mod relay;
mod results;
mod table;
mod transfer;
mod wire;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use deployment::{Deployment, Way};
use results::Results;

#[derive(Parser)]
struct Args {
    /// How often everything is measured
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Connections, one after the other, in the measurement of latency
    #[arg(long, default_value_t = 2000)]
    connects: usize,
    /// Bytes of one transfer
    #[arg(long, default_value_t = 1 << 30)]
    bytes: usize,
    /// Idle connections in the measurement of memory
    #[arg(long, default_value_t = 5000)]
    idle: u32,
    /// Round trips on one connection
    #[arg(long, default_value_t = 3000)]
    pings: usize,
    /// How often each link is measured
    #[arg(long, default_value_t = 3)]
    link_runs: usize,
    /// Measure this part only
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Given by `cargo bench` to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Latency, throughput, processors and memory, next to a direct connection
    Path,
    /// Links with long round trips, next to konnectivity
    Links,
    /// A connection that one server has another one carry
    Relay,
}

/// What the benchmark starts of itself, in one of the networks.
#[derive(Subcommand)]
enum Role {
    #[command(hide = true)]
    Client(client::Args),
    #[command(hide = true)]
    Target(transfer::TargetArgs),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.role {
        Some(Role::Client(client)) => client::run(client).map(|()| true),
        Some(Role::Target(target)) => transfer::serve(target).map(|()| true),
        None => measure(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench tunnel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the tables; true if the targets were met.
fn measure(args: &Args) -> Result<bool> {
    let wanted = |part| args.only.is_none_or(|only| only == part);
    let path = !wanted(Part::Path) || measure_path(args)?;
    let links = !wanted(Part::Links) || links::measure(args.link_runs)?;
    if wanted(Part::Relay) {
        relay::measure(args)?;
    }
    Ok(path && links)
}

fn measure_path(args: &Args) -> Result<bool> {
    let mut results = Results::default();
    for run in 1..=args.runs {
        eprintln!("memory, run {run} of {}", args.runs);
        results.memory.push(memory::measure(args.idle)?);
    }
    let deployment = Deployment::start()?;
    for run in 1..=args.runs {
        for way in [Way::Direct, Way::Culvert] {
            eprintln!("{way:?}, run {run} of {}", args.runs);
            results.measure(way, &deployment, args)?;
        }
    }
    table::print(&results, args);
    Ok(table::print_targets(&results))
}
