//! `probe forge`: connects with the source address and ports of somebody else, as fast as it can, and
//! waits for nothing. What it can do to that one's connections is what a test wants to know.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use clap::Args as ClapArgs;
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Where to connect to
    #[arg(long)]
    to: SocketAddr,
    /// The address to connect from, whoever has it
    #[arg(long)]
    from: IpAddr,
    /// The first source port
    #[arg(long)]
    port: u16,
    /// How many ports from there on are used in turn
    #[arg(long, default_value_t = 1)]
    ports: u16,
    /// Seconds until the end
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

pub(crate) fn run(args: &Args) {
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut ports = (0..args.ports).map(|offset| args.port + offset).cycle();
    let mut attempts = 0_u64;
    let mut told = false;
    while Instant::now() < end {
        let port = ports.next().expect("an endless cycle");
        // A port that is still in use, an address without a route: the next one may work.
        let _ = attempt(args, port);
        attempts += 1;
        if !told && attempts == 1000 {
            println!("forging");
            told = true;
        }
    }
}

fn attempt(args: &Args, port: u16) -> io::Result<()> {
    let socket = Socket::new(
        Domain::for_address(args.to),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    if args.from.is_ipv6() {
        sockopt::set_ipv6_freebind(&socket, true)?;
    } else {
        sockopt::set_ip_freebind(&socket, true)?;
    }
    socket.bind(&SocketAddr::new(args.from, port).into())?;
    socket.connect(&args.to.into())
}
