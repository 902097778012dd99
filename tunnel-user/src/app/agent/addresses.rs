//! Under which addresses clients know this machine.

use std::net::IpAddr;

use crate::redirect::addresses::AddressWatch;

/// Those that were given, or else all that the machine has; the server takes those that a node
/// can have.
pub(super) async fn of_this_machine(given: &[IpAddr]) -> anyhow::Result<Vec<IpAddr>> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    let own = AddressWatch::new().await?.subscribe();
    Ok(own
        .borrow()
        .iter()
        .copied()
        .filter(|ip| !ip.is_loopback())
        .collect())
}
