//! `cargo xtask cluster`: builds what a cluster needs and becomes the cluster program of the tests crate.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Subcommand;

use crate::{image, programs, setup, shell};

#[derive(Subcommand)]
pub(crate) enum Action {
    /// Bring up a control-plane node and two edge nodes behind NAT, and leave them running
    Up,
    /// Install Culvert on the cluster that is up, as docs/kubernetes.md tells to
    Install,
    /// Bring in a cloud worker, and Culvert with the overlay that serves clients on it
    Worker,
    /// Remove the cluster, also after a crash
    Down,
    /// Run the tests of the cluster tier, on a cluster of their own
    Test {
        /// Run only tests whose name contains this
        #[arg(long, value_name = "NAME")]
        filter: Option<String>,
    },
    /// Build the programs and images, and start nothing
    Build,
    /// Measure Yurt-Tunnel and Culvert, each on a cluster of its own, and print them side by side
    Compare {
        /// Handed on to the comparison: --only ROW, --tunnel NAME
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
}

/// True unless tests have failed.
pub(crate) fn run(action: &Action) -> Result<bool> {
    let verb = match action {
        Action::Test { filter } => return crate::test::cluster(filter.clone()),
        Action::Build => {
            prepare()?;
            return Ok(true);
        }
        Action::Compare { rest } => return compare(rest).map(|()| true),
        Action::Up => "up",
        Action::Install => "install",
        Action::Worker => "worker",
        Action::Down => "down",
    };
    shell::require_root("a cluster")?;
    if matches!(action, Action::Up) {
        prepare()?;
    }
    if matches!(action, Action::Install | Action::Worker) {
        image::ensure_culvert(image::Profile::Dev)?;
    }
    shell::build_programs()?;
    // Replaced, so that a signal reaches the program itself.
    let cluster = shell::target_directory().join("debug").join("cluster");
    let error = Command::new(&cluster).arg(verb).exec();
    Err(error).with_context(|| format!("start {}", cluster.display()))
}

/// Both tunnels as they are shipped: what is measured is built for release.
fn compare(rest: &[String]) -> Result<()> {
    shell::require_root("a cluster")?;
    prepare()?;
    programs::ensure(programs::OPENYURT)?;
    image::ensure_culvert(image::Profile::Release)?;
    shell::build_programs()?;
    let compare = shell::target_directory().join("debug").join("compare");
    let error = Command::new(&compare).args(rest).exec();
    Err(error).with_context(|| format!("start {}", compare.display()))
}

/// Waits until the cluster of the tests is gone.
pub(crate) fn down_after_tests() -> Result<()> {
    let target = shell::target_directory();
    let mut down = Command::new(target.join("debug").join("cluster"));
    down.arg("--directory").arg(target.join("cluster-test"));
    shell::run(down.arg("down"))
}

/// Whatever a cluster runs, built.
pub(crate) fn prepare() -> Result<()> {
    prepare_with(&[programs::KUBERNETES])
}

/// The same, and the tunnel that tests migrate from.
pub(crate) fn prepare_tests() -> Result<()> {
    prepare()?;
    programs::ensure(programs::OPENYURT)
}

/// The same for a cluster of the newest Kubernetes.
pub(crate) fn prepare_newest() -> Result<()> {
    prepare_with(&[programs::KUBERNETES_NEWEST, programs::CONTAINERD])
}

fn prepare_with(modules: &[programs::Module]) -> Result<()> {
    setup::ensure(setup::Purpose::Test)?;
    for module in modules {
        programs::ensure(*module)?;
    }
    programs::ensure(programs::METRICS_SERVER)?;
    programs::ensure(programs::COREDNS)?;
    image::ensure_common()
}
