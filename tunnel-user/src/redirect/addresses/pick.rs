//! Where redirected connects go when nobody says where: the address by which others know this machine.
//!
//! An address counts if it is reachable from elsewhere (scope global, no longer tentative, no duplicate). Among those,
//! in this order:
//!  1. one that lasts before a deprecated one, whose preferred lifetime is over;
//!  2. by its interface: the default route of the *main* table (least metric first), then a route to a router in that
//!     table, then hardware and tunnels, then any: policy routes say nothing of a machine's own address;
//!  3. a permanent IPv6 address before a temporary one, of which there is a new one every day (RFC 8981);
//!  4. one with a network before one of a single host (/32, /128), which may be a virtual address on its way; on
//!     loopback all are such, as on machines that tell routers their address themselves;
//!  5. the one in use before others, then the primary of its network, then in the kernel's order.
//!
//! Where there is none, loopback: it serves this machine's own network namespace only.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use super::{
    netlink::{OwnAddress, UseToOthers},
    routes::{Link, Route},
    uplinks::leads_out,
};
use crate::model::Family;

/// This machine's addresses that could receive redirected connects, the best first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates(Vec<Candidate>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The address.
    pub ip: IpAddr,
    /// The name of its interface.
    pub interface: String,
    rank: Rank,
}

/// What an address' interface is to this machine, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// It has the default route, of this metric.
    DefaultRoute(u32),
    /// It leads to a router.
    Routed,
    /// It is hardware or a tunnel.
    LeadsOut,
    /// It is something else: a bridge of containers, or loopback where that has an address that others know.
    Elsewhere,
    /// It leads nowhere.
    Loopback,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_deprecated: bool,
    place: Place,
    is_temporary: bool,
    is_host: bool,
}

impl Candidates {
    pub(super) fn new(addresses: &[OwnAddress], links: &[Link], routes: &[Route]) -> Self {
        let links: BTreeMap<_, _> = links.iter().map(|link| (link.number, link)).collect();
        let mut found: Vec<_> = addresses
            .iter()
            .filter(|own| own.ip.is_loopback() || is_known_to_others(own))
            .filter_map(|own| {
                let link = links.get(&own.link)?;
                let candidate = Candidate {
                    ip: own.ip,
                    interface: link.name.clone(),
                    rank: Rank {
                        is_deprecated: own.use_to_others == UseToOthers::Deprecated,
                        place: place(own.ip, link, routes),
                        is_temporary: own.is_secondary && own.ip.is_ipv6(),
                        is_host: own.is_host && !link.is_loopback,
                    },
                };
                Some((candidate, own.is_secondary))
            })
            .collect();
        found.sort_by_key(|(candidate, is_secondary)| (candidate.rank, *is_secondary));
        Self(found.into_iter().map(|(candidate, _)| candidate).collect())
    }

    /// The best of a family; the one in use if no other is better. `None` if this machine has no address of it.
    pub fn choose(&self, family: Family, in_use: Option<IpAddr>) -> Option<&Candidate> {
        let mut of_family = self.0.iter().filter(|one| Family::of(one.ip) == family);
        let best = of_family.clone().next()?;
        let kept = of_family.find(|one| Some(one.ip) == in_use && one.rank == best.rank);
        Some(kept.unwrap_or(best))
    }
}

impl Candidate {
    /// What its interface is to this machine.
    pub fn place(&self) -> Place {
        self.rank.place
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (interface, rank) = (&self.interface, self.rank);
        match self.place() {
            Place::DefaultRoute(metric) => {
                write!(f, "on {interface}, which has the default route")?;
                if metric != 0 {
                    write!(f, " of metric {metric}")?;
                }
            }
            Place::Routed => write!(f, "on {interface}, which leads to a router")?,
            Place::LeadsOut => write!(f, "on {interface}: no interface leads to a router")?,
            Place::Elsewhere => write!(f, "on {interface}: no interface leads out")?,
            Place::Loopback => return write!(f, "this machine has no other"),
        }
        let blemishes = [
            (rank.is_deprecated, "its preferred lifetime is over"),
            (rank.is_temporary, "it is temporary"),
            (rank.is_host, "it is of a single host"),
        ];
        for (_, blemish) in blemishes.iter().filter(|(applies, _)| *applies) {
            write!(f, ", {blemish}, but there is no other")?;
        }
        Ok(())
    }
}

/// Those that servers put on loopback are theirs alone.
fn is_known_to_others(own: &OwnAddress) -> bool {
    own.use_to_others != UseToOthers::None && !own.ours
}

fn place(ip: IpAddr, link: &Link, routes: &[Route]) -> Place {
    if ip.is_loopback() {
        return Place::Loopback;
    }
    let on_link = |route: &&Route| route.is_main && route.link == Some(link.number);
    let of_family = |route: &&Route| route.family == Family::of(ip);
    let routes = routes.iter().filter(on_link).filter(of_family);
    let default = routes.clone().filter(|route| route.destination.is_none());
    if let Some(metric) = default.map(|route| route.metric).min() {
        Place::DefaultRoute(metric)
    } else if routes.clone().any(|route| route.gateway.is_some()) {
        Place::Routed
    } else if leads_out(link) {
        Place::LeadsOut
    } else {
        Place::Elsewhere
    }
}

#[cfg(test)]
mod tests;
