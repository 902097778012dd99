//! `cargo xtask lint`: formatting, clippy and documentation, every warning an error.

use anyhow::Result;

use crate::{setup, shell};

pub(crate) fn run() -> Result<()> {
    setup::ensure()?;
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
    ];
    shell::run(shell::cargo(doc).env("RUSTDOCFLAGS", "-D warnings"))
}
