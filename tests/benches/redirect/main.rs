//! What a `connect()` costs with the redirect, next to iptables, nft and a direct one.
//!
//! Every case has a sealed network, a cgroup and a worker process of its own. In each round every
//! case has its turn, in random order; what counts is the ratio to the direct connect of the same
//! round, so that what slows the whole machine down for a while does not count.

mod case;
mod original;
mod ruleset;
mod site;
mod stream;
mod table;
mod worker;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use rand::{SeedableRng as _, rngs::SmallRng, seq::SliceRandom as _};

use case::{CASES, Case};
use site::Site;
use worker::Request;

#[derive(Parser)]
struct Args {
    /// Rounds of connects
    #[arg(long, default_value_t = 600)]
    rounds: usize,
    /// Rounds of transfers and round trips over an open connection
    #[arg(long, default_value_t = 60)]
    stream_rounds: usize,
    /// Only cases whose name contains this, besides the direct connect
    #[arg(long, default_value = "")]
    only: String,
    /// Given by `cargo bench` to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// Measures one case; started by the benchmark itself, in that case's network
    #[command(hide = true)]
    Worker(worker::Args),
}

/// Connects of one round of one case.
const CONNECTS: usize = 100;

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.role {
        Some(Role::Worker(worker)) => worker::run(worker),
        None => measure(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench redirect: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<()> {
    let wanted = |case: &&Case| case.is_baseline() || case.name.contains(&args.only);
    let mut sites = CASES
        .iter()
        .filter(wanted)
        .map(Site::new)
        .collect::<Result<Vec<_>>>()?;
    eprintln!("{} cases, {} rounds", sites.len(), args.rounds);
    let connect = Request::Connects { count: CONNECTS };
    rounds(args.rounds, &mut sites, |site| {
        site.measure_connects(&connect)
    })?;
    rounds(args.stream_rounds, &mut sites, Site::measure_stream)?;
    table::print(&sites);
    Ok(())
}

/// Gives every case its turn in each round, in random order.
fn rounds(
    count: usize,
    sites: &mut [Site],
    mut measure: impl FnMut(&mut Site) -> Result<()>,
) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(1);
    let mut order: Vec<usize> = (0..sites.len()).collect();
    for _ in 0..count {
        order.shuffle(&mut random);
        for &turn in &order {
            measure(&mut sites[turn])?;
        }
    }
    Ok(())
}
