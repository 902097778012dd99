//! Binds listening sockets, or takes those that a predecessor hands over.

mod port_holder;

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

use self::port_holder::PortHolder;

/// Clients that have connected and wait to be accepted. The kernel caps it at
/// `net.core.somaxconn`.
pub(crate) const BACKLOG: i32 = 4096;

/// Binds an address; `setting` names the flag to change where that fails.
pub(crate) fn listen(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    try_listen(address, true).map_err(|error| {
        let in_use = error.kind() == ErrorKind::AddrInUse;
        let holder = in_use.then(|| PortHolder::of(address.port())).flatten();
        let cannot = format!("cannot listen on {address}");
        anyhow::Error::new(error).context(match holder {
            Some(holder) => {
                format!("{cannot}: {holder}: end it, or choose another with {setting}")
            }
            None => format!("{cannot}: free it, or choose another with {setting}"),
        })
    })
}

/// Binds a port on this address, or on every one of this machine.
pub(crate) fn listen_on(
    ip: Option<IpAddr>,
    port: u16,
    setting: &str,
) -> anyhow::Result<TcpListener> {
    match ip {
        Some(ip) => listen(SocketAddr::new(ip, port), setting),
        None => listen_everywhere(port, setting),
    }
}

/// Binds a port on every address of this machine, of both families where it has both.
fn listen_everywhere(port: u16, setting: &str) -> anyhow::Result<TcpListener> {
    let dual_stack = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
    match try_listen(dual_stack, false) {
        Ok(listener) => Ok(listener),
        // No IPv6 here, or something else: IPv4 will tell.
        Err(_) => listen(
            SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
            setting,
        ),
    }
}

/// Makes a listener ready for the runtime.
pub(crate) fn into_tokio(listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

fn try_listen(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
