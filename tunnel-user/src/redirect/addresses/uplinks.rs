//! Which interfaces lead to other machines. What comes in by one of them is not a client of this
//! machine, whatever address it asks for; all others lead to pods.

use std::{collections::BTreeSet, io, net::IpAddr};

use rtnetlink::packet_route::link::InfoKind;

use super::{
    netlink::{Netlink, OwnAddress},
    pick::{Candidates, Place},
    routes::{Link, Route},
};
use crate::model::Family;

/// What this machine looks like from the outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Every address of it, loopback included.
    pub addresses: BTreeSet<IpAddr>,
    /// The numbers of the interfaces that lead to other machines.
    pub uplinks: BTreeSet<u32>,
    /// What could receive redirected connects.
    pub candidates: Candidates,
}

impl Surroundings {
    /// Asks the kernel once.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn read() -> io::Result<Self> {
        Self::read_by(&mut Netlink::new()?).await
    }

    /// The address under which other machines reach this one, the one that a server here would redirect to. IPv4 first;
    /// `None` if this machine has no address but loopback.
    pub fn primary(&self) -> Option<IpAddr> {
        let mut chosen = Family::ALL
            .into_iter()
            .filter_map(|family| self.candidates.choose(family, None));
        let reachable = chosen.find(|candidate| candidate.place() != Place::Loopback);
        reachable.map(|candidate| candidate.ip)
    }

    pub(super) async fn read_by(netlink: &mut Netlink) -> io::Result<Self> {
        let addresses = netlink.addresses().await?;
        let links = netlink.links().await?;
        let routes = netlink.routes().await?;
        let candidates = Candidates::new(&addresses, &links, &routes);
        Ok(Self {
            uplinks: uplinks(&links, &routes, &addresses, &candidates),
            addresses: addresses.into_iter().map(|own| own.ip).collect(),
            candidates,
        })
    }
}

/// An interface leads to other machines when it is hardware or a tunnel, when a router is reached by it,
/// when it has an address by which others know this machine, or when it is joined with such a one.
fn uplinks(
    links: &[Link],
    routes: &[Route],
    addresses: &[OwnAddress],
    candidates: &Candidates,
) -> BTreeSet<u32> {
    let is_own = |ip: &IpAddr| addresses.iter().any(|own| own.ip == *ip);
    let to_routers = routes
        .iter()
        .filter(|route| route.gateway.is_some_and(|gateway| !is_own(&gateway)))
        .filter_map(|route| route.link);
    let primary = Family::ALL.map(|family| Some(candidates.choose(family, None)?.ip));
    let known_by = addresses
        .iter()
        .filter(|own| primary.contains(&Some(own.ip)))
        .map(|own| own.link);
    let by_kind = links
        .iter()
        .filter(|link| leads_out(link))
        .map(|link| link.number);
    let mut uplinks: BTreeSet<u32> = to_routers.chain(known_by).chain(by_kind).collect();
    while let Some(master) = links
        .iter()
        .filter(|link| uplinks.contains(&link.number))
        .filter_map(|link| link.master)
        .find(|master| !uplinks.contains(master))
    {
        uplinks.insert(master);
    }
    for loopback in links.iter().filter(|link| link.is_loopback) {
        uplinks.remove(&loopback.number);
    }
    uplinks
}

/// Whether an interface of this kind leads out whatever the routes say.
pub(super) fn leads_out(link: &Link) -> bool {
    match &link.kind {
        None => !link.is_loopback,
        Some(
            InfoKind::Veth
            | InfoKind::Netkit
            | InfoKind::Bridge
            | InfoKind::Dummy
            | InfoKind::Ifb
            | InfoKind::Vrf
            | InfoKind::Nlmon,
        ) => false,
        Some(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::testing::{link, own, route},
        *,
    };

    #[test]
    fn pods_interfaces_are_no_uplinks_and_what_leads_to_routers_is_one() {
        let links = [
            link(1, None),
            link(2, None),                   // eth0
            link(3, Some(InfoKind::Bridge)), // cni0
            Link {
                master: Some(3),
                ..link(4, Some(InfoKind::Veth))
            },
            link(5, Some(InfoKind::Veth)), // leads to a router of a lab
            link(6, Some(InfoKind::Vxlan)),
            link(7, Some(InfoKind::Veth)),   // cilium_host
            link(8, Some(InfoKind::Bridge)), // joined with a VLAN
            Link {
                master: Some(8),
                ..link(9, Some(InfoKind::Vlan))
            },
            link(10, Some(InfoKind::Veth)), // has the primary address
        ];
        let addresses = [own("10.77.0.1", 10), own("10.244.0.1", 3)];
        let routes = [
            route(None, Some("192.0.2.1"), 5),
            route(Some("10.244.1.0/24"), Some("10.244.0.1"), 7),
        ];
        let candidates = Candidates::new(&addresses, &links, &routes);
        let found = uplinks(&links, &routes, &addresses, &candidates);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [2, 5, 6, 8, 9, 10]);
    }

    #[test]
    fn loopback_is_none_even_with_the_primary_address() {
        let (links, addresses) = ([link(1, None)], [own("127.0.0.1", 1)]);
        let candidates = Candidates::new(&addresses, &links, &[]);
        let found = uplinks(&links, &[], &addresses, &candidates);
        assert!(found.is_empty());
    }
}
