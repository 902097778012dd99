//! `cargo xtask test`: everything, in named tiers. A tier that cannot run has failed, with its reason.
//!
//! The closing lines are one per tier and, last, the sum: `N passed, N failed`.

mod tally;
mod vm;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args as ClapArgs, ValueEnum};

use crate::{cluster, image, previous, setup, shell};
use tally::Tally;

#[derive(ClapArgs, Default)]
pub(crate) struct Args {
    /// Run only these tiers (repeatable); by default all but newest and vm
    #[arg(long, value_enum)]
    only: Vec<Tier>,
    /// Add the vm tier: the kernel and e2e tests on Debian's 6.1 and 6.12 kernels under QEMU
    #[arg(long)]
    vm: bool,
    /// The full loads (200,000 connects and so on) instead of the quick ones, and the newest tier
    #[arg(long)]
    full: bool,
    /// Boot only kernels of this series in the vm tier, such as 6.1 (repeatable)
    #[arg(long, value_name = "SERIES", default_values = vm::SERIES)]
    kernel: Vec<String>,
    /// Run only tests whose name contains this
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tier {
    /// Decisions and protocols, in memory and over loopback
    Unit,
    /// The redirect and the harness on this machine's kernel, in namespaces and cgroups of their own
    Kernel,
    /// Server, agent and real clients together
    E2e,
    /// A real Kubernetes cluster
    Cluster,
    /// What of the cluster tier depends on Kubernetes' version, on the newest
    Newest,
    /// Kernel and e2e again on other kernels
    Vm,
}

/// The modules of the cluster tier that depend on what the API server, the kubelet and kubectl say to each other and to
/// Culvert; the others are about what Culvert does by itself.
const ON_NEWEST: [&str; 4] = ["reach::", "rotations::", "source::", "streams::"];

/// How a tier ended, and how many seconds it took.
type Ended = (Tier, Result<Tally>, u64);

/// True when everything passed.
pub(crate) fn run(args: &Args) -> Result<bool> {
    setup::ensure(setup::Purpose::Test)?;
    let mut total = Tally::default();
    let ended = run_tiers(&tiers(args), args);
    println!();
    for (tier, outcome, seconds) in ended {
        let name = tier
            .to_possible_value()
            .map(|value| value.get_name().to_owned());
        let name = name.unwrap_or_default();
        match outcome {
            Ok(tally) => {
                println!("{name}: {tally} in {seconds} s");
                for failure in &tally.failures {
                    println!("{name}: {failure} FAILED");
                }
                total += tally;
            }
            Err(error) => {
                println!("{name}: could not run: {error:#}");
                total.failed += 1;
            }
        }
    }
    println!("{total}");
    Ok(total.failed == 0)
}

fn tiers(args: &Args) -> Vec<Tier> {
    let mut tiers = match args.only.as_slice() {
        [] => vec![Tier::Unit, Tier::Kernel, Tier::E2e, Tier::Cluster],
        only => only.to_vec(),
    };
    if args.full && args.only.is_empty() {
        tiers.push(Tier::Newest);
    }
    if args.vm && !tiers.contains(&Tier::Vm) {
        tiers.push(Tier::Vm);
    }
    tiers
}

/// One after the other; but clusters are waited for most of the time, and emulated machines work with what they leave.
fn run_tiers(tiers: &[Tier], args: &Args) -> Vec<Ended> {
    let has_vm = tiers.contains(&Tier::Vm);
    let (beside, alone): (Vec<_>, Vec<_>) = tiers
        .iter()
        .copied()
        .partition(|tier| has_vm && matches!(tier, Tier::Cluster | Tier::Newest | Tier::Vm));
    let mut ended: Vec<_> = alone
        .into_iter()
        .map(|tier| Prepared::of(tier, args).run())
        .collect();
    // What any of these builds would keep the others waiting.
    let prepared = beside.into_iter().map(|tier| Prepared::of(tier, args));
    let (machines, clusters): (Vec<_>, Vec<_>) =
        prepared.partition(|prepared| prepared.tier == Tier::Vm);
    let run_all =
        |tiers: Vec<Prepared<'_>>| tiers.into_iter().map(Prepared::run).collect::<Vec<_>>();
    thread::scope(|scope| {
        let machines = scope.spawn(|| run_all(machines));
        ended.extend(run_all(clusters));
        ended.extend(machines.join().expect("running machines does not panic"));
    });
    ended
}

/// A tier for which everything is built, or could not be.
struct Prepared<'a> {
    tier: Tier,
    run: Result<Run<'a>>,
    /// What that took.
    took: Duration,
}

type Run<'a> = Box<dyn FnOnce() -> Result<Tally> + Send + 'a>;

impl<'a> Prepared<'a> {
    fn of(tier: Tier, args: &'a Args) -> Self {
        let began = Instant::now();
        let run = prepare(tier, args);
        Self {
            tier,
            run,
            took: began.elapsed(),
        }
    }

    fn run(self) -> Ended {
        let began = Instant::now();
        let outcome = self.run.and_then(|run| run());
        (self.tier, outcome, (self.took + began.elapsed()).as_secs())
    }
}

/// Builds whatever the tier's tests run.
fn prepare<'a>(tier: Tier, args: &'a Args) -> Result<Run<'a>> {
    let run: Run<'a> = match tier {
        Tier::Unit => Box::new(|| test_units(args)),
        Tier::Kernel => {
            shell::require_root("the kernel tier")?;
            build()?;
            Box::new(|| cargo_test(&["--test", "kernel"], args))
        }
        Tier::E2e => {
            shell::require_root("the e2e tier")?;
            previous::ensure()?;
            build()?;
            Box::new(|| cargo_test(&["--test", "e2e"], args))
        }
        Tier::Cluster => {
            shell::require_root("the cluster tier")?;
            cluster::prepare_tests()?;
            build_for_cluster(args)?;
            Box::new(|| test_on_cluster(args))
        }
        Tier::Newest => {
            shell::require_root("the newest tier")?;
            cluster::prepare_newest()?;
            build_for_cluster(args)?;
            Box::new(|| test_on_newest(args))
        }
        Tier::Vm => {
            let machines = vm::prepare(&args.kernel, args.filter.as_deref())?;
            Box::new(move || machines.run())
        }
    };
    Ok(run)
}

fn test_units(args: &Args) -> Result<Tally> {
    let mut tally = cargo_test(&["--lib", "--bins"], args)?;
    if args.filter.is_none() {
        tally += cargo_test(&["--doc"], args)?;
    }
    Ok(tally)
}

/// The cluster tier alone, for `cargo xtask cluster test`.
pub(crate) fn cluster(filter: Option<String>) -> Result<bool> {
    run(&Args {
        only: vec![Tier::Cluster],
        filter,
        ..Args::default()
    })
}

fn build_for_cluster(args: &Args) -> Result<()> {
    build()?;
    image::ensure_culvert(if args.full {
        image::Profile::Quick
    } else {
        image::Profile::Dev
    })
}

/// The tests share one cluster, which they would disturb for each other.
fn test_on_cluster(args: &Args) -> Result<Tally> {
    let tally = cargo_test(&["--test", "cluster", "--", "--test-threads=1"], args);
    // It goes by itself when the tests have ended; here we wait until it has gone.
    cluster::down_after_tests()?;
    tally
}

fn test_on_newest(args: &Args) -> Result<Tally> {
    let mut which = vec!["--test", "cluster", "--", "--test-threads=1"];
    if args.filter.is_none() {
        which.extend(ON_NEWEST);
    }
    let mut command = cargo_test_command(&which, args);
    let tally = counted(command.env("CULVERT_KUBERNETES", "newest"));
    cluster::down_after_tests()?;
    tally
}

/// The programs that the tests start: `culvert` is not built by testing another package. With the tests, since without
/// them the libraries have other features, and everything is compiled once more.
fn build() -> Result<()> {
    let everything = ["build", "--quiet", "--workspace", "--bins", "--tests"];
    shell::run(&mut shell::cargo(everything))
}

fn cargo_test(which: &[&str], args: &Args) -> Result<Tally> {
    counted(&mut cargo_test_command(which, args))
}

fn cargo_test_command(which: &[&str], args: &Args) -> Command {
    // The same selection of packages each time, so that nothing is compiled twice with other features.
    let mut command = shell::cargo(["test", "--workspace", "--no-fail-fast"]);
    command.args(which);
    if args.full {
        command.env("CULVERT_FULL", "1");
    }
    if let Some(filter) = &args.filter {
        if !which.contains(&"--") {
            command.arg("--");
        }
        command.arg(filter);
    }
    command
}

/// Runs a command that prints what Rust's test harness prints, and counts.
fn counted(command: &mut Command) -> Result<Tally> {
    eprintln!("+ {}", shell::show(command));
    let (status, tally) = tally::follow(command)?;
    if !status.success() && tally.failed == 0 {
        // It did not compile, or a test took the whole process down.
        bail!("{} failed ({status})", shell::show(command));
    }
    Ok(tally)
}
