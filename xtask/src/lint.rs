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
    let doc = [
        "doc",
        "--quiet",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ];
    shell::run(shell::cargo(doc).env("RUSTDOCFLAGS", "-D warnings"))
}
