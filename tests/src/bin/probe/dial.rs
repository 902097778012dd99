//! `probe dial`: opens one connection and gives it to a test.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};
use clap::Args as ClapArgs;
use culvert_tests::handover;

use crate::client::Options;

#[derive(ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    options: Options,
    /// Unix socket of whoever takes the connection
    #[arg(long)]
    give_to: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let connection = args
        .options
        .open()
        .map_err(|failure| anyhow!(failure.cause()))?;
    let through = UnixStream::connect(&args.give_to).context("nobody takes the connection")?;
    handover::give(&through, &connection).context("give the connection away")
}
