//! The agent: wires its parts together and runs them until it is told to stop.

use crate::cli::AgentArgs;

/// Runs the agent until it is told to stop.
#[expect(clippy::unused_async, reason = "the parts it awaits are not wired yet")]
pub async fn run(_args: AgentArgs) -> anyhow::Result<()> {
    anyhow::bail!("the agent is not wired yet")
}
