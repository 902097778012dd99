//! Under which addresses clients know this machine.

use std::net::IpAddr;

/// Those that were given, or else all that the machine has; the server takes those that a node
/// can have.
pub(super) async fn of_this_machine(given: &[IpAddr]) -> anyhow::Result<Vec<IpAddr>> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    let own = crate::redirect::addresses::of_this_machine().await?;
    Ok(own.iter().copied().filter(|ip| !ip.is_loopback()).collect())
}
