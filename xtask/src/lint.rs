//! `cargo xtask lint`: formatting, clippy, documentation and dependencies, every warning an error.

use std::process::Command;

use anyhow::Result;
use clap::Args as ClapArgs;

use crate::setup::LintTool;
use crate::{setup, shell, vendored};

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Ask the database of `RustSec` about the dependencies as well: it is fetched from GitHub
    #[arg(long)]
    advisories: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(setup::Purpose::Build)?;
    shell::run(&mut shell::cargo(["fmt", "--all", "--check"]))?;
    let clippy = [
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    shell::run(&mut shell::cargo(clippy))?;
    // The kernel programs, as code for this machine: a compiler for BPF comes without clippy. They know no
    // unwinding.
    let programs = [
        "clippy",
        "--quiet",
        "-p",
        "tunnel-ebpf",
        "--bins",
        "--features",
        "log",
    ];
    let mut programs = shell::cargo(programs);
    programs.args(["--", "-D", "warnings"]);
    shell::run(programs.env("CARGO_PROFILE_DEV_PANIC", "abort"))?;
    let doc = [
        "doc",
        "--quiet",
        "--workspace",
        "--no-deps",
        "--document-private-items",
        // As clippy has checked them, with their tests: otherwise all libraries are checked once more.
        "--features",
        "tokio/test-util",
    ];
    shell::run(shell::cargo(doc).env("RUSTDOCFLAGS", "-D warnings"))?;
    vendored::check(args.advisories)?;
    unused_dependencies()?;
    dependencies(args.advisories)
}

fn unused_dependencies() -> Result<()> {
    let mut check = Command::new(setup::lint_tool(&LintTool::MACHETE)?);
    // Without the library that is only changed here.
    check.args(["tests", "tunnel-ebpf", "tunnel-user", "xtask"]);
    shell::run(check.current_dir(shell::root()))
}

/// What `deny.toml` says of them. Known holes are in a database that not every machine can have, so they are asked for
/// where somebody wants it, and nobody is to take their silence for an answer.
fn dependencies(advisories: bool) -> Result<()> {
    let deny = setup::lint_tool(&LintTool::DENY)?;
    // It looks at what is for other platforms as well, which no build has fetched.
    shell::run(&mut shell::cargo(["fetch", "--quiet", "--locked"]))?;
    let check = |words: &[&str]| {
        let mut check = Command::new(&deny);
        shell::run(check.current_dir(shell::root()).args(words))
    };
    check(&[
        "--offline",
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ])?;
    if !advisories {
        println!(
            "lint: NOT checked: known holes in dependencies (cargo xtask lint --advisories, where GitHub can be reached)"
        );
        return Ok(());
    }
    check(&["--log-level", "error", "check", "advisories"])
}
