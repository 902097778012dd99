//! The clients that rows start.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use culvert_tests::Launch;

use crate::stage::Stage;

/// How long one client may take at all.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// kubectl's switch between the protocols of exec and port-forward, see
/// [KEP-4006](https://github.com/kubernetes/enhancements/issues/4006).
pub(crate) const PROTOCOLS: [(&str, &str); 2] = [("WebSocket", "true"), ("SPDY", "false")];

/// kubectl with one of the two protocols.
pub(crate) fn kubectl_over(stage: &Stage, websockets: &str) -> Result<Launch> {
    Ok(stage
        .cluster
        .kubectl_launch()?
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets))
}

/// A shell where a program would run, for pipes.
pub(crate) fn shell(place: &Launch, line: &str) -> Launch {
    place.with_program("sh").arg("-c").arg(line)
}

/// Runs a client to its end: what it said, and the seconds that it took.
pub(crate) fn timed(launch: &Launch) -> Result<(String, f64)> {
    let started = Instant::now();
    let said = launch.start()?.succeed(PATIENCE)?;
    Ok((said, started.elapsed().as_secs_f64()))
}

/// A curl on the control plane.
pub(crate) fn curl(stage: &Stage, line: &str) -> Launch {
    let curl = stage.cluster.control_plane().launch("curl");
    curl.words("--silent --show-error --insecure").words(line)
}

/// A condition that makes a row's result something else than "works".
pub(crate) fn expect(holds: bool, said: &str) -> Result<()> {
    holds.then_some(()).with_context(|| {
        let last = said.lines().last().unwrap_or_default();
        format!("not what was expected: {last}")
    })
}
