//! `cargo xtask`: what a developer of Culvert runs. One module for each subcommand.

mod bench;
mod build_ebpf;
mod cluster;
mod demo;
mod image;
mod lint;
mod previous;
mod programs;
mod setup;
mod shell;
mod test;
mod vendored;

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
    /// A real Kubernetes cluster in namespaces: one control-plane node, two edge nodes behind NAT
    #[command(subcommand)]
    Cluster(cluster::Action),
    /// Measure, next to a direct connection
    Bench(bench::Args),
    /// Build Culvert's container image as an OCI archive, without an engine
    Image(image::Args),
    /// Check formatting, clippy, the documentation and the dependencies, warnings denied
    Lint(lint::Args),
}

fn main() -> ExitCode {
    let outcome = match Xtask::parse().command {
        Command::Setup => setup::run().map(success),
        Command::BuildEbpf => build_ebpf::run().map(success),
        Command::Demo => demo::run().map(success),
        Command::Test(args) => test::run(&args).map(exit_code),
        Command::Cluster(action) => cluster::run(&action).map(exit_code),
        Command::Bench(args) => bench::run(&args).map(success),
        Command::Image(args) => image::run(&args).map(success),
        Command::Lint(args) => lint::run(&args).map(success),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn success((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

/// The sum of the tests is the last line, whatever it is.
fn exit_code(passed: bool) -> ExitCode {
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
