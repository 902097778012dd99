//! How a client gets its connection: it connects, or asks a proxy on a Unix socket for one.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use socket2::{Domain, SockAddr, Socket, Type};

const PATIENCE: Duration = Duration::from_mins(1);
/// A proxy says no more than that before the first byte.
const LONGEST_HEAD: usize = 4096;

/// `ADDRESS:PORT` of a target, or `ADDRESS:PORT@SOCKET` of one behind a proxy that takes HTTP's CONNECT there.
#[derive(Clone, Debug)]
pub(crate) struct To {
    target: SocketAddr,
    proxy: Option<PathBuf>,
}

impl FromStr for To {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (target, proxy) = match text.split_once('@') {
            Some((target, socket)) => (target, Some(socket.into())),
            None => (text, None),
        };
        Ok(Self {
            target: target.parse()?,
            proxy,
        })
    }
}

impl To {
    /// A connection, ready for the first byte.
    pub(crate) fn open(&self) -> Result<Socket> {
        if let Some(proxy) = &self.proxy {
            return self.ask(proxy);
        }
        let socket = Socket::new(Domain::for_address(self.target), Type::STREAM, None)?;
        socket.connect_timeout(&self.target.into(), PATIENCE)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    }

    fn ask(&self, proxy: &PathBuf) -> Result<Socket> {
        let target = self.target;
        let mut socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.connect(&SockAddr::unix(proxy)?)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        socket.write_all(request.as_bytes())?;
        let head = head(&mut socket).context("the proxy's answer")?;
        if head.split(' ').nth(1) != Some("200") {
            bail!("the proxy answers {head}");
        }
        Ok(socket)
    }
}

/// The answer up to its empty line, and no byte of what comes after it.
fn head(socket: &mut Socket) -> Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte)?;
        head.push(byte[0]);
        ensure!(head.len() < LONGEST_HEAD, "it does not end");
    }
    Ok(String::from_utf8(head)?)
}
