//! `cargo xtask demo`: sets up, builds, and becomes the demo program of the tests crate.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{setup, shell};

pub(crate) fn run() -> Result<()> {
    shell::require_root("the demo")?;
    setup::ensure(setup::Purpose::Demo)?;
    println!("Building (the first time takes a few minutes) ...");
    shell::build_programs()?;
    // Replaced, so that a signal reaches the program that cleans up.
    let demo = shell::target_directory().join("debug").join("demo");
    let error = Command::new(&demo).exec();
    Err(error).with_context(|| format!("start {}", demo.display()))
}
