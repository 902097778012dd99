//! `cargo xtask`: what a developer of Culvert runs. One module for each subcommand.

mod bench;
mod build_ebpf;
mod demo;
mod lint;
mod setup;
mod shell;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, tests and shows Culvert")]
struct Xtask {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building and testing need (Debian and Ubuntu; elsewhere it prints the commands)
    Setup,
    /// Build the kernel programs and print what is in the objects
    BuildEbpf,
    /// Show the whole path in namespaces of its own: a curl to a node behind NAT, before and after
    Demo,
    /// Run the tests, tier by tier
    Test(test::Args),
    /// Measure, next to a direct connection
    Bench(bench::Args),
    /// Check formatting, clippy and the documentation, warnings denied
    Lint,
}

fn main() -> ExitCode {
    let outcome = match Xtask::parse().command {
        Command::Setup => setup::run(),
        Command::BuildEbpf => build_ebpf::run(),
        Command::Demo => demo::run(),
        Command::Test(args) => match test::run(&args) {
            // The sum is the last line, whatever it is.
            Ok(passed) if !passed => return ExitCode::FAILURE,
            outcome => outcome.map(drop),
        },
        Command::Bench(args) => bench::run(&args),
        Command::Lint => lint::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
