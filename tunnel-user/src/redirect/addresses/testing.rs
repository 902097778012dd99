//! Addresses, interfaces and routes for tests.

use ipnet::IpNet;
use rtnetlink::packet_route::link::InfoKind;

use super::{
    netlink::{OwnAddress, UseToOthers},
    routes::{Link, Route},
};
use crate::model::Family;

/// One with a network, like any that an administrator has given.
pub(super) fn own(ip: &str, link: u32) -> OwnAddress {
    let ip: std::net::IpAddr = ip.parse().unwrap();
    OwnAddress {
        ip,
        link,
        use_to_others: if ip.is_loopback() {
            UseToOthers::None
        } else {
            UseToOthers::Preferred
        },
        is_secondary: false,
        is_host: false,
        ours: false,
    }
}

/// Number 1 is loopback.
pub(super) fn link(number: u32, kind: Option<InfoKind>) -> Link {
    Link {
        number,
        name: format!("link{number}"),
        is_loopback: number == 1,
        kind,
        master: None,
    }
}

/// Of the main table; of IPv4 unless it says otherwise.
pub(super) fn route(to: Option<&str>, gateway: Option<&str>, link: u32) -> Route {
    let net = |to: &str| to.parse::<IpNet>().unwrap();
    let gateway: Option<std::net::IpAddr> = gateway.map(|ip| ip.parse().unwrap());
    let address = to.map(|to| net(to).addr()).or(gateway);
    Route {
        family: address.map_or(Family::V4, Family::of),
        is_main: true,
        metric: 0,
        destination: to.map(net),
        gateway,
        link: Some(link),
        ours: false,
    }
}
