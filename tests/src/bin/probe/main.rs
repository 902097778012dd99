//! Small real clients and servers that tests run inside namespaces and cgroups.
//!
//! Every client is bounded by `--seconds` or a count; every report is one JSON line (see
//! `culvert_tests::report`).

mod client;
mod connect;
mod crowd;
mod dial;
mod errno;
mod flood;
mod forge;
mod hash;
mod hold;
mod payload;
mod ping;
mod race;
mod relay;
mod serve;
mod stall;
mod strangers;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use rustix::process::{Resource, getrlimit, setrlimit};

/// The agents of a crowd are those that `culvert` runs, and allocate as it does.
#[cfg(target_arch = "x86_64")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Parser)]
#[command(about = "Small clients and servers for Culvert's tests")]
struct Probe {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve: plain echo, or what a flag says
    Echo(serve::Args),
    /// Connect a number of times and report what happened
    Connect(connect::Args),
    /// Connect, echo one byte and close, over and over
    Flood(flood::Args),
    /// Connect from somebody else's address and ports, over and over
    Forge(forge::Args),
    /// Carry random bytes both ways on parallel connections and compare hashes
    Hash(hash::Args),
    /// Connect to random targets, each of which must say its own address
    Race(race::Args),
    /// Measure round trips over one connection
    Ping(ping::Args),
    /// Open one connection and give it to a test
    Dial(dial::Args),
    /// Connect at a steady rate, and hold every connection for as long as it lasts
    Hold(hold::Args),
    /// Accept connections and carry them on, each way with a delay
    Relay(relay::Args),
    /// Open a download and stop reading
    Stall(stall::Args),
    /// Be many agents, or register their nodes
    Crowd(crowd::Args),
    /// Knock at a server's door, over and over, with nothing to show
    Strangers(strangers::Args),
}

fn main() -> ExitCode {
    match run(Probe::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    raise_file_limit()?;
    match command {
        Command::Echo(args) => serve::run(args),
        Command::Connect(args) => connect::run(&args),
        Command::Flood(args) => flood::run(&args),
        Command::Forge(args) => {
            forge::run(&args);
            Ok(())
        }
        Command::Hash(args) => hash::run(args),
        Command::Race(args) => race::run(&args),
        Command::Ping(args) => ping::run(&args),
        Command::Dial(args) => dial::run(&args),
        Command::Hold(args) => hold::run(&args),
        Command::Relay(args) => relay::run(&args),
        Command::Stall(args) => stall::run(&args),
        Command::Crowd(args) => crowd::run(&args),
        Command::Strangers(args) => strangers::run(&args),
    }
}

/// Thousands of sockets need more than the usual soft limit.
fn raise_file_limit() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("raise the limit of open files")
}

/// Prints the report, which ends the program's output.
fn report(report: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(())
}
