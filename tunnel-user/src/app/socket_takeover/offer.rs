//! What an old process gives away: its listening sockets, as descriptors beside the bytes of a Unix
//! socket, and the nodes whose agents the successor may expect.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::UnixStream,
};

use crate::model::NodeName;

/// The most sockets: agents, meta, HTTP, one for each address family of the redirect, and those of HTTPS, of
/// which the listed ports have 128 at most; and some to spare for later versions. The kernel passes on
/// 253 at a time (unix(7)).
const MOST_SOCKETS: usize = 160;
/// Names of a hundred thousand nodes, with room.
const LONGEST: u32 = 64 << 20;

/// Sockets and nodes.
#[derive(Debug, Default)]
pub(in crate::app) struct Offer {
    sockets: Vec<TcpListener>,
    /// The nodes that have a session with the old process.
    pub(in crate::app) nodes: Vec<NodeName>,
}

/// Makes an offer of the sockets that there are at that time.
pub(in crate::app) type MakeOffer = Box<dyn Fn() -> io::Result<Offer> + Send + Sync>;

/// What is written beside the sockets.
#[derive(Serialize, Deserialize)]
struct Message {
    nodes: Vec<NodeName>,
}

impl Offer {
    pub(in crate::app) fn new(sockets: Vec<TcpListener>) -> Self {
        Self {
            sockets,
            nodes: Vec::new(),
        }
    }

    /// The socket that listens on this port of the address, or of every address.
    pub(in crate::app) fn take_on(&mut self, ip: Option<IpAddr>, port: u16) -> Option<TcpListener> {
        match ip {
            Some(ip) => self.take(SocketAddr::new(ip, port)),
            None => self.take_everywhere(port),
        }
    }

    /// Every socket that listens on such an address.
    pub(in crate::app) fn take_all(
        &mut self,
        is_such: impl Fn(SocketAddr) -> bool,
    ) -> Vec<TcpListener> {
        let is_such = |socket: &mut TcpListener| socket.local_addr().is_ok_and(&is_such);
        self.sockets.extract_if(.., is_such).collect()
    }

    /// The socket that listens on this port of every address, of both families or of one.
    fn take_everywhere(&mut self, port: u16) -> Option<TcpListener> {
        let v6 = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        self.take(v6).or_else(|| self.take(v4))
    }

    /// The same sockets, with these nodes.
    pub(super) fn with_nodes(self, nodes: Vec<NodeName>) -> Self {
        Self { nodes, ..self }
    }

    /// The socket that listens on this address, if it is among them.
    pub(in crate::app) fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let on_address =
            |socket: &TcpListener| socket.local_addr().is_ok_and(|local| local == address);
        let index = self.sockets.iter().position(on_address)?;
        Some(self.sockets.swap_remove(index))
    }

    pub(super) async fn send(&self, stream: &mut UnixStream) -> io::Result<()> {
        let message = serde_json::to_vec(&Message {
            nodes: self.nodes.clone(),
        })?;
        let length = u32::try_from(message.len()).map_err(io::Error::other)?;
        stream
            .async_io(Interest::WRITABLE, || {
                self.send_sockets(stream, length.to_be_bytes())
            })
            .await?;
        stream.write_all(&message).await
    }

    pub(super) async fn receive(stream: &mut UnixStream) -> io::Result<Self> {
        let mut length = [0; 4];
        let sockets = stream
            .async_io(Interest::READABLE, || receive_sockets(stream, &mut length))
            .await?;
        let length = u32::from_be_bytes(length);
        if length > LONGEST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the offer is too long",
            ));
        }
        let mut message = vec![0; length as usize];
        stream.read_exact(&mut message).await?;
        let Message { nodes } = serde_json::from_slice(&message)?;
        Ok(Self {
            sockets: sockets.into_iter().map(TcpListener::from).collect(),
            nodes,
        })
    }

    fn send_sockets(&self, stream: &UnixStream, length: [u8; 4]) -> io::Result<()> {
        let sockets: Vec<_> = self.sockets.iter().map(TcpListener::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(io::Error::other("too many sockets to hand over"));
        }
        // Four bytes into an empty socket buffer go whole or not at all.
        sendmsg(
            stream,
            &[IoSlice::new(&length)],
            &mut ancillary,
            SendFlags::empty(),
        )?;
        Ok(())
    }
}

fn receive_sockets(stream: &UnixStream, length: &mut [u8; 4]) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(length)];
    let received = recvmsg(stream, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes != 4 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let sockets = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    Ok(sockets.flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_and_nodes_arrive() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let offer = Offer::new(vec![listener]).with_nodes(vec!["edge-1".parse().unwrap()]);
        let (mut here, mut there) = UnixStream::pair().unwrap();
        offer.send(&mut here).await.unwrap();
        let mut received = Offer::receive(&mut there).await.unwrap();
        assert_eq!(received.nodes, offer.nodes);
        let taken = received.take(address).unwrap();
        assert!(received.take(address).is_none());
        drop(offer);
        let client = std::net::TcpStream::connect(address).unwrap();
        assert_eq!(taken.accept().unwrap().1, client.local_addr().unwrap());
    }

    #[tokio::test]
    async fn what_is_no_offer_is_an_error() {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        here.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        assert!(Offer::receive(&mut there).await.is_err());
        drop(here);
        assert!(Offer::receive(&mut there).await.is_err());
    }
}
