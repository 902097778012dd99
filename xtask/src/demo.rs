//! `cargo xtask demo`: sets up, builds, and hands over to the demo program of the tests crate.

use anyhow::Result;

use crate::{setup, shell};

pub(crate) fn run() -> Result<()> {
    shell::require_root("the demo")?;
    setup::ensure()?;
    println!("Building (the first time takes a few minutes) ...");
    shell::run(&mut shell::cargo(["build", "--quiet", "--workspace"]))?;
    shell::run(&mut shell::cargo([
        "run",
        "--quiet",
        "--workspace",
        "--bin",
        "demo",
    ]))
}
