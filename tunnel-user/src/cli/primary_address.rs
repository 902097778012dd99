//! The address from which this machine reaches others.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

/// Documentation addresses (RFC 5737, RFC 3849): they are only looked up in the routing table.
const ELSEWHERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// The source address of the default route, IPv4 first. Connecting a UDP socket asks the routing
/// table and sends nothing.
pub(super) fn primary_address() -> io::Result<IpAddr> {
    let [v4, v6] = ELSEWHERE;
    source_towards(v4).or_else(|_| source_towards(v6))
}

fn source_towards(elsewhere: IpAddr) -> io::Result<IpAddr> {
    let any = match elsewhere {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(SocketAddr::new(elsewhere, 9))?;
    Ok(socket.local_addr()?.ip())
}
