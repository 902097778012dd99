//! `cargo xtask cluster`: a Kubernetes cluster that stays until it is told to go.
//!
//! `up` starts a process of its own, `serve`, which makes the cluster, keeps it and removes it when it is asked to;
//! `down` asks it, and removes what is left of a cluster whose process was killed.

mod serve;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use culvert_tests::cluster::{self, Cluster, Directory};
use culvert_tests::programs;

#[derive(Parser)]
#[command(name = "cluster", about = "A Kubernetes cluster in network namespaces")]
struct Args {
    /// Where the cluster keeps its files; by default cluster in the target directory
    #[arg(long, global = true)]
    directory: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring a cluster up: one control-plane node and two edge nodes behind NAT
    Up,
    /// Install Culvert on the cluster that is up
    Install,
    /// Bring in a cloud worker, and Culvert with the overlay that serves clients on it
    Worker,
    /// Remove the cluster, also after a crash
    Down,
    /// Make a cluster and keep it until a signal, or until a process ends
    Serve {
        /// The process that the cluster is for
        #[arg(long)]
        until: Option<u32>,
    },
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<()> {
    let directory = match args.directory {
        Some(directory) => directory,
        None => programs::target_directory()?.join("cluster"),
    };
    let directory = Directory::new(directory)?;
    match args.command {
        Command::Up => up::run(&directory),
        Command::Install => Cluster::open(&directory)?.install_culvert(),
        Command::Worker => bring_in_worker(&Cluster::open(&directory)?),
        Command::Down => down(&directory),
        Command::Serve { until } => serve::run(&directory, until),
    }
}

fn bring_in_worker(cluster: &Cluster) -> Result<()> {
    cluster.import_culvert()?;
    cluster.start_worker()?;
    cluster.install_relay()
}

fn down(directory: &Directory) -> Result<()> {
    let place = directory.root().display();
    let was_there = cluster::down(directory)?;
    let _ = std::fs::remove_file(up::log(directory));
    if was_there {
        println!("The cluster in {place} is gone.");
    } else {
        println!("There is no cluster in {place}.");
    }
    Ok(())
}
