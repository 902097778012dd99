//! A link that takes its time: `probe relay`, started.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use crate::{Daemon, Launch, NetNs, programs};

const PATIENCE: Duration = Duration::from_secs(40);
/// The longest that a link lasts.
const SECONDS: &str = "3600";

/// What leads from one address in a network to another that is reached from there, and takes so long each way; it
/// accepts when this returns, and ends with the guard.
pub fn start(
    namespace: &NetNs,
    from: SocketAddr,
    to: SocketAddr,
    delay: Duration,
) -> Result<Daemon> {
    let relay = Launch::new(namespace, programs::probe()?).arg("relay");
    let relay = relay.arg("--bind").arg(from.to_string());
    let relay = relay.arg("--to").arg(to.to_string());
    let relay = relay.arg("--delay-ms").arg(delay.as_millis().to_string());
    let mut relay = relay.arg("--seconds").arg(SECONDS).start()?;
    relay.wait_for_line("listening", PATIENCE)?;
    Ok(relay)
}
