//! `cargo xtask setup`: makes a fresh machine able to build, test and show Culvert.
//!
//! It looks first and acts only on what is missing, so it can run any number of times. Where it cannot act (no
//! root, no apt) it prints the exact commands.

mod go;
mod packages;
mod toolchain;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

pub(crate) use self::toolchain::LintTool;
use crate::shell;

/// One thing to do, as the commands that do it.
pub(super) struct Step {
    why: String,
    commands: Vec<Command>,
    needs_root: bool,
}

/// What a machine is to be used for. Each needs what those before it need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    Build,
    Demo,
    /// Tests and benchmarks.
    Test,
}

/// For whatever there is.
pub(crate) fn run() -> Result<()> {
    install(|| {
        missing_for(Purpose::Test)
            .chain(toolchain::missing_to_lint())
            .collect()
    })
}

fn install(missing: impl Fn() -> Vec<Step>) -> Result<()> {
    let steps = missing();
    if steps.is_empty() {
        println!("setup: everything is there: {}", toolchain::describe());
        return Ok(());
    }
    act(steps)?;
    let left = missing();
    if left.is_empty() {
        println!("setup: done: {}", toolchain::describe());
        return Ok(());
    }
    bail!("setup: still missing: {}", reasons(&left))
}

/// For the commands that need a set-up machine: acts only when something is missing.
pub(crate) fn ensure(purpose: Purpose) -> Result<()> {
    if missing_for(purpose).next().is_none() {
        return Ok(());
    }
    install(|| missing_for(purpose).collect())
}

/// The `go` that builds other people's programs.
pub(crate) fn go() -> Result<PathBuf> {
    go::find().context("Go 1.26 or newer is missing (cargo xtask setup)")
}

/// A tool of the lint, installed if it is not there: building one takes minutes, and nothing else needs it.
pub(crate) fn lint_tool(tool: &LintTool) -> Result<PathBuf> {
    if tool.find().is_none() {
        install(|| toolchain::missing_to_lint().collect())?;
    }
    let missing = || format!("{} is missing (cargo xtask setup)", tool.name());
    tool.find().with_context(missing)
}

fn missing_for(purpose: Purpose) -> impl Iterator<Item = Step> {
    let go = (purpose == Purpose::Test).then(go::missing).flatten();
    packages::missing(purpose)
        .into_iter()
        .chain(go)
        .chain(toolchain::missing())
}

fn act(steps: Vec<Step>) -> Result<()> {
    let root = rustix::process::geteuid().is_root();
    let apt = shell::find("apt-get").is_some();
    if steps.iter().any(|step| step.needs_root && !(root && apt)) {
        let cause = if apt {
            "not root"
        } else {
            "no apt-get: not Debian or Ubuntu"
        };
        println!(
            "setup cannot do this by itself ({cause}). Run, or do the same with your system's tools:"
        );
        for command in steps.iter().flat_map(|step| &step.commands) {
            println!("    {}", shell::show(command));
        }
        bail!("missing: {}", reasons(&steps));
    }
    for mut step in steps {
        println!("setup: {}", step.why);
        step.commands.iter_mut().try_for_each(shell::run)?;
    }
    Ok(())
}

fn reasons(steps: &[Step]) -> String {
    steps
        .iter()
        .map(|step| step.why.as_str())
        .collect::<Vec<_>>()
        .join("; ")
}
