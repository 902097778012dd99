//! Which interfaces lead to other machines. What comes in by one of them is not a client of this
//! machine, whatever address it asks for; all others lead to pods.

use std::{collections::BTreeSet, io, net::IpAddr};

use rtnetlink::packet_route::link::InfoKind;

use super::{
    netlink::{Netlink, OwnAddress},
    pick::{RedirectAddresses, pick},
    routes::{Link, Route},
};

/// What this machine looks like from the outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Every address of it, loopback included.
    pub addresses: BTreeSet<IpAddr>,
    /// The numbers of the interfaces that lead to other machines.
    pub uplinks: BTreeSet<u32>,
}

impl Surroundings {
    /// Asks the kernel once.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn read() -> io::Result<Self> {
        Self::read_by(&mut Netlink::new()?).await
    }

    pub(super) async fn read_by(netlink: &mut Netlink) -> io::Result<Self> {
        let addresses = netlink.addresses().await?;
        let primary = pick(netlink, &addresses).await?;
        let links = netlink.links().await?;
        let routes = netlink.routes().await?;
        Ok(Self {
            uplinks: uplinks(&links, &routes, &addresses, primary),
            addresses: addresses.into_iter().map(|own| own.ip).collect(),
        })
    }
}

/// An interface leads to other machines when it is hardware or a tunnel, when a router is reached by it,
/// when it has an address by which others know this machine, or when it is joined with such a one.
fn uplinks(
    links: &[Link],
    routes: &[Route],
    addresses: &[OwnAddress],
    primary: RedirectAddresses,
) -> BTreeSet<u32> {
    let is_own = |ip: &IpAddr| addresses.iter().any(|own| own.ip == *ip);
    let to_routers = routes
        .iter()
        .filter(|route| route.gateway.is_some_and(|gateway| !is_own(&gateway)))
        .filter_map(|route| route.link);
    let primary = [primary.v4.map(IpAddr::from), primary.v6.map(IpAddr::from)];
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
fn leads_out(link: &Link) -> bool {
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
    use super::*;

    fn link(number: u32, kind: Option<InfoKind>, master: Option<u32>) -> Link {
        Link {
            number,
            is_loopback: number == 1,
            kind,
            master,
        }
    }

    fn own(ip: &str, link: u32) -> OwnAddress {
        OwnAddress {
            ip: ip.parse().unwrap(),
            link,
            usable: true,
            ours: false,
        }
    }

    fn route(to: Option<&str>, gateway: Option<&str>, link: u32) -> Route {
        Route {
            destination: to.map(|net| net.parse().unwrap()),
            gateway: gateway.map(|ip| ip.parse().unwrap()),
            link: Some(link),
            ours: false,
        }
    }

    #[test]
    fn pods_interfaces_are_no_uplinks_and_what_leads_to_routers_is_one() {
        let links = [
            link(1, None, None),
            link(2, None, None),                   // eth0
            link(3, Some(InfoKind::Bridge), None), // cni0
            link(4, Some(InfoKind::Veth), Some(3)),
            link(5, Some(InfoKind::Veth), None), // leads to a router of a lab
            link(6, Some(InfoKind::Vxlan), None),
            link(7, Some(InfoKind::Veth), None),   // cilium_host
            link(8, Some(InfoKind::Bridge), None), // joined with a VLAN
            link(9, Some(InfoKind::Vlan), Some(8)),
            link(10, Some(InfoKind::Veth), None), // has the primary address
        ];
        let addresses = [own("10.244.0.1", 3), own("10.77.0.1", 10)];
        let routes = [
            route(None, Some("192.0.2.1"), 5),
            route(Some("10.244.1.0/24"), Some("10.244.0.1"), 7),
        ];
        let primary = RedirectAddresses {
            v4: Some("10.77.0.1".parse().unwrap()),
            v6: None,
        };
        let found = uplinks(&links, &routes, &addresses, primary);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [2, 5, 6, 8, 9, 10]);
    }

    #[test]
    fn loopback_is_none_even_with_the_primary_address() {
        let links = [link(1, None, None)];
        let primary = RedirectAddresses {
            v4: Some("127.0.0.1".parse().unwrap()),
            v6: None,
        };
        let found = uplinks(&links, &[], &[own("127.0.0.1", 1)], primary);
        assert!(found.is_empty());
    }
}
