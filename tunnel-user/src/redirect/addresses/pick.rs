//! Where redirected connects go when nobody says where.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::netlink::{Netlink, OwnAddress};

/// An address of each family to listen on. Clients in other network namespaces reach a node's
/// address, but not its loopback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedirectAddresses {
    /// `None` if this machine has no IPv4.
    pub v4: Option<Ipv4Addr>,
    /// `None` if this machine has no IPv6.
    pub v6: Option<Ipv6Addr>,
}

/// Picks the addresses by which others know this machine: the first global one of the interface
/// with the default route, else of any, else the loopback address.
///
/// # Errors
/// When the kernel does not answer.
pub async fn pick_redirect_addresses() -> io::Result<RedirectAddresses> {
    let mut netlink = Netlink::new()?;
    let addresses = netlink.addresses().await?;
    pick(&mut netlink, &addresses).await
}

pub(super) async fn pick(
    netlink: &mut Netlink,
    addresses: &[OwnAddress],
) -> io::Result<RedirectAddresses> {
    let v4_links = netlink.default_links(false).await?;
    let v6_links = netlink.default_links(true).await?;
    Ok(RedirectAddresses {
        v4: pick_one(addresses, &v4_links, |ip| match ip {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        }),
        v6: pick_one(addresses, &v6_links, |ip| match ip {
            IpAddr::V6(v6) => Some(v6),
            IpAddr::V4(_) => None,
        }),
    })
}

fn pick_one<A: Copy + Into<IpAddr>>(
    addresses: &[OwnAddress],
    default_links: &[u32],
    family: impl Fn(IpAddr) -> Option<A>,
) -> Option<A> {
    let global = |own: &&OwnAddress| own.usable && !own.ip.is_loopback();
    let of_family = |own: &OwnAddress| family(own.ip);
    let on_default_link = default_links.iter().find_map(|link| {
        let on_link = addresses.iter().filter(|own| own.link == *link);
        on_link.filter(global).find_map(of_family)
    });
    let anywhere = || addresses.iter().filter(global).find_map(of_family);
    let loopback = || {
        let mut all = addresses.iter().filter(|own| own.ip.is_loopback());
        all.find_map(of_family)
    };
    on_default_link.or_else(anywhere).or_else(loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(ip: &str, link: u32) -> OwnAddress {
        let ip: IpAddr = ip.parse().unwrap();
        OwnAddress {
            ip,
            link,
            usable: !ip.is_loopback(),
            ours: false,
        }
    }

    fn v4(addresses: &[OwnAddress], default_links: &[u32]) -> Option<String> {
        let found = pick_one(addresses, default_links, |ip| match ip {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => None,
        });
        found.map(|ip| ip.to_string())
    }

    #[test]
    fn the_default_routes_interface_wins_then_any_then_loopback() {
        let loopback = own("127.0.0.1", 1);
        let bridge = own("172.17.0.1", 2);
        let uplink = own("192.0.2.10", 3);
        let v6 = own("2001:db8::1", 3);
        let all = [loopback, bridge, v6, uplink];
        assert_eq!(v4(&all, &[3]).as_deref(), Some("192.0.2.10"));
        assert_eq!(v4(&all, &[]).as_deref(), Some("172.17.0.1"));
        assert_eq!(v4(&[loopback, v6], &[3]).as_deref(), Some("127.0.0.1"));
        assert_eq!(v4(&[v6], &[3]), None);
    }

    #[test]
    fn an_address_that_is_not_usable_yet_is_passed_over() {
        let tentative = OwnAddress {
            usable: false,
            ..own("192.0.2.10", 3)
        };
        let other = own("192.0.2.11", 3);
        assert_eq!(v4(&[tentative, other], &[3]).as_deref(), Some("192.0.2.11"));
    }
}
