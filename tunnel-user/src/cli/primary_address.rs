//! The address under which other machines reach this one: the one that a server here would redirect to.

use std::{io, net::IpAddr};

use crate::{
    model::Family,
    redirect::addresses::{Place, Surroundings},
};

/// IPv4 first; `None` if this machine has no address but loopback.
pub(super) async fn primary_address() -> io::Result<Option<IpAddr>> {
    let candidates = Surroundings::read().await?.candidates;
    let mut chosen = Family::ALL
        .into_iter()
        .filter_map(|family| candidates.choose(family, None));
    let reachable = chosen.find(|candidate| candidate.place() != Place::Loopback);
    Ok(reachable.map(|candidate| candidate.ip))
}
