//! `cargo xtask bench`: builds for release and runs one of the benchmarks of the tests crate.

use anyhow::Result;
use clap::{Args as ClapArgs, ValueEnum};

use crate::{cluster, image, programs, setup, shell};

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// What to measure
    which: Which,
    /// Handed on to the benchmark
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    /// Thousands of agents: memory and processor time of their sessions, and how soon all are back
    Crowd,
    /// One node of many changes: the time until the kernel knows
    Nodes,
    /// `connect()` with the redirect, with iptables and nft, and without
    Redirect,
    /// The whole path: latency, throughput, memory; links with long round trips, beside konnectivity; relayed connections
    Tunnel,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    shell::require_root("a benchmark")?;
    setup::ensure(setup::Purpose::Test)?;
    let bench = match args.which {
        Which::Crowd => "crowd",
        Which::Nodes => "nodes",
        Which::Redirect => "redirect",
        Which::Tunnel => "tunnel",
    };
    if matches!(args.which, Which::Tunnel) {
        prepare_tunnel(&args.rest)?;
    }
    // Without what only tests of `tunnel-user` want of its libraries: it would be measured as well.
    let mut programs = shell::cargo(["build", "--release", "--package", "tunnel-user"]);
    programs.args(["--package", "culvert-tests", "--bins"]);
    shell::run(&mut programs)?;
    let mut command = shell::cargo(["bench", "--package", "culvert-tests", "--bench", bench]);
    command.arg("--").args(&args.rest);
    shell::run(&mut command)
}

/// What its parts run besides our own programs.
fn prepare_tunnel(rest: &[String]) -> Result<()> {
    let mut only = rest.windows(2).filter(|words| words[0] == "--only");
    let only = only.next().map(|words| words[1].as_str());
    let wanted = |part| only.is_none_or(|only| only == part);
    if wanted("links") {
        programs::ensure(programs::KONNECTIVITY)?;
    }
    if wanted("relay") {
        cluster::prepare()?;
        image::ensure_culvert(image::Profile::Release)?;
    }
    Ok(())
}
