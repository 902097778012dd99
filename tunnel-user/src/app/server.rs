//! The server: wires its parts together and runs them until it is told to stop.

use crate::cli::ServerArgs;

/// Runs the server until it is told to stop.
#[expect(clippy::unused_async, reason = "the parts it awaits are not wired yet")]
pub async fn run(_args: ServerArgs) -> anyhow::Result<()> {
    anyhow::bail!("the server is not wired yet")
}
