//! One way to open a connection, out of the many that real clients have.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use clap::Args;
use rustix::net::{SendFlags, sendto};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::errno;

/// `MSG_FASTOPEN` of include/linux/socket.h: connect and send in one call, data in the SYN.
const MSG_FASTOPEN: SendFlags = SendFlags::from_bits_retain(0x2000_0000);

#[derive(Args, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "one per command-line switch")]
pub(crate) struct Options {
    /// Address and port to connect to
    #[arg(long)]
    pub(crate) to: SocketAddr,
    /// Connect without blocking and wait for the outcome, as Go does
    #[arg(long)]
    nonblocking: bool,
    /// Send the first byte with TCP Fast Open
    #[arg(long)]
    fastopen: bool,
    /// Dial an IPv4 address through an IPv6 socket, as Java does
    #[arg(long)]
    v4_mapped: bool,
    /// Make the IPv6 socket IPv6-only
    #[arg(long)]
    v6_only: bool,
    /// Bind to this local address first
    #[arg(long)]
    bind: Option<IpAddr>,
    /// And to this local port
    #[arg(long, default_value_t = 0, requires = "bind")]
    source_port: u16,
    /// Bind to this interface first
    #[arg(long)]
    device: Option<String>,
    /// Put this mark on the socket
    #[arg(long)]
    mark: Option<u32>,
    /// Connect here first, disconnect (`AF_UNSPEC`), and use the same socket for `--to`
    #[arg(long)]
    first: Option<SocketAddr>,
    /// Milliseconds after which a connect or a read is given up
    #[arg(long, default_value_t = 5000)]
    timeout_ms: u64,
}

/// Where a try ended, and why.
#[derive(Debug)]
pub(crate) struct Failure {
    stage: &'static str,
    error: io::Error,
}

impl Failure {
    /// `connect ECONNREFUSED`.
    pub(crate) fn cause(&self) -> String {
        format!("{} {}", self.stage, errno::name(&self.error))
    }
}

/// Names the stage at which an error happened.
pub(crate) trait At<T> {
    fn at(self, stage: &'static str) -> Result<T, Failure>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, stage: &'static str) -> Result<T, Failure> {
        self.map_err(|error| Failure { stage, error })
    }
}

/// The byte that goes with a SYN under Fast Open, and that `echo` sends.
pub(crate) const BYTE: u8 = 0x55;

impl Options {
    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// Opens a connection. Under Fast Open one [`BYTE`] is on its way already.
    pub(crate) fn open(&self) -> Result<Socket, Failure> {
        let socket = self.socket().at("socket")?;
        let timeout = Some(self.timeout());
        if let Some(first) = self.first {
            socket
                .connect_timeout(&self.as_dialled(first), self.timeout())
                .at("first")?;
            rustix::net::connect_unspec(&socket)
                .map_err(io::Error::from)
                .at("disconnect")?;
        }
        let to = self.as_dialled(self.to);
        if self.fastopen {
            self.send_with_syn(&socket).at("connect")?;
        } else if self.nonblocking {
            // socket2 sets O_NONBLOCK, connects, polls and asks SO_ERROR, which is the pattern meant here.
            socket.connect_timeout(&to, self.timeout()).at("connect")?;
        } else {
            // SO_SNDTIMEO bounds a blocking connect.
            socket.set_write_timeout(timeout).at("socket")?;
            socket.connect(&to).at("connect")?;
        }
        socket.set_read_timeout(timeout).at("socket")?;
        socket.set_write_timeout(timeout).at("socket")?;
        Ok(socket)
    }

    fn socket(&self) -> io::Result<Socket> {
        let domain = if self.v4_mapped {
            Domain::IPV6
        } else {
            Domain::for_address(self.to)
        };
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(self.v6_only)?;
        }
        if let Some(mark) = self.mark {
            socket.set_mark(mark)?;
        }
        if let Some(device) = &self.device {
            socket.bind_device(Some(device.as_bytes()))?;
        }
        if let Some(address) = self.bind {
            socket.set_reuse_address(self.source_port != 0)?;
            socket.bind(&self.as_dialled(SocketAddr::new(address, self.source_port)))?;
        }
        Ok(socket)
    }

    fn as_dialled(&self, address: SocketAddr) -> SockAddr {
        match address {
            SocketAddr::V4(v4) if self.v4_mapped => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            address => address.into(),
        }
    }

    fn send_with_syn(&self, socket: &Socket) -> io::Result<()> {
        let to = self.as_dialled(self.to).as_socket().expect("an IP address");
        socket.set_write_timeout(Some(self.timeout()))?;
        sendto(socket, &[BYTE], MSG_FASTOPEN, &to)?;
        Ok(())
    }

    /// Sends one byte (unless it went with the SYN) and reads it back.
    pub(crate) fn echo(&self, mut socket: &Socket) -> Result<(), Failure> {
        if !self.fastopen {
            socket.write_all(&[BYTE]).at("echo")?;
        }
        comes_back(socket, &[BYTE])
    }
}

/// Sends this and reads it back.
pub(crate) fn echo_of(mut socket: &Socket, said: &[u8]) -> Result<(), Failure> {
    socket.write_all(said).at("echo")?;
    comes_back(socket, said)
}

fn comes_back(mut socket: &Socket, said: &[u8]) -> Result<(), Failure> {
    let mut answer = vec![0; said.len()];
    socket.read_exact(&mut answer).at("echo")?;
    if answer != said {
        return Err(io::Error::other("something else came back")).at("echo");
    }
    Ok(())
}

/// The peer that the kernel tells, v4-mapped addresses as IPv4.
pub(crate) fn peer(socket: &Socket) -> Result<SocketAddr, Failure> {
    let peer = socket.peer_addr().map_err(|error| ended(socket, error));
    let peer = peer.at("getpeername")?;
    let peer = peer.as_socket().expect("an IP address");
    let canonical = |ip: IpAddr| match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 @ IpAddr::V4(_) => v4,
    };
    Ok(SocketAddr::new(canonical(peer.ip()), peer.port()))
}

/// Why a connection that has ended already did: whoever is reset before it asks for its peer hears only
/// that it is not connected.
fn ended(socket: &Socket, error: io::Error) -> io::Error {
    let cause = socket.take_error().ok().flatten();
    cause.unwrap_or(error)
}

/// Asks for a path as the one request of this connection; the answer has to be whole, and a good one.
pub(crate) fn get(mut socket: &Socket, path: &str) -> Result<(), Failure> {
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    socket.write_all(request.as_bytes()).at("request")?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).at("answer")?;
    match answer.split(|byte| *byte == b' ').nth(1) {
        Some(b"200") => Ok(()),
        Some(_) => Err(io::Error::other("not the status 200")).at("answer"),
        None => Err(io::ErrorKind::UnexpectedEof.into()).at("answer"),
    }
}

/// The line that the server sends by itself, and nothing of what comes after it.
pub(crate) fn greeting(mut socket: &Socket) -> Result<String, Failure> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        socket.read_exact(&mut byte).at("greeting")?;
        if byte == *b"\n" {
            return Ok(String::from_utf8_lossy(&line).into_owned());
        }
        line.push(byte[0]);
    }
}
