//! This machine's addresses: under which clients know it, and which of them it has itself.

use std::net::IpAddr;

use tokio_util::sync::CancellationToken;

use crate::{app::tasks::Tasks, redirect::addresses::AddressWatch, tunnel::agent::LocalAddresses};

/// Follows the addresses that this machine has. An agent that cannot learn them serves all the
/// same.
pub(super) async fn follow(tasks: &mut Tasks, end: &CancellationToken) -> Option<LocalAddresses> {
    match AddressWatch::new().await {
        Ok(watch) => {
            let local = watch.subscribe();
            tasks.try_spawn("watching this machine's addresses", watch.run(end.clone()));
            Some(local)
        }
        Err(error) => {
            tracing::warn!(
                %error,
                "cannot read this machine's addresses: an enrolment needs --node-ip, or a token \
                 made with --address",
            );
            None
        }
    }
}

/// Those that were given, or else all that the machine has; the server takes those that a node
/// can have.
pub(super) fn proposed(given: &[IpAddr], local: Option<&LocalAddresses>) -> Vec<IpAddr> {
    if !given.is_empty() {
        return given.to_vec();
    }
    let local = local.map(|local| local.borrow().clone());
    let local = local.iter().flat_map(|local| local.iter().copied());
    local.filter(|ip| !ip.is_loopback()).collect()
}
