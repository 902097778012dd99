//! The old process's end of a takeover: what a successor does, step by step. What that means, and how long each step
//! may take, the server's life decides.

use std::{future::pending, io, mem, path::Path};

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use tokio::{io::AsyncReadExt as _, net::UnixStream};

use super::{MakeOffer, READY, SOCKET};
use crate::{
    model::NodeName,
    observability::private_socket::{PrivateSocket, is_trusted},
};

/// Waits for a successor, and has one at a time.
pub(in crate::app) struct OldProcess {
    socket: PrivateSocket,
    sockets: MakeOffer,
    successor: Successor,
}

/// What a successor has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::app) enum Step {
    /// It asks for the sockets, and may have them.
    Came,
    /// It has the offer.
    TookOffer,
    /// It accepts clients.
    Ready,
}

enum Successor {
    None,
    /// It waits for the offer.
    Waiting(UnixStream),
    Reading(BoxFuture<'static, io::Result<UnixStream>>),
    GettingReady(UnixStream),
}

impl OldProcess {
    /// Offers what these sockets are then to whoever comes.
    pub(in crate::app) fn new(run_dir: &Path, sockets: MakeOffer) -> anyhow::Result<Self> {
        let socket = PrivateSocket::bind(run_dir, SOCKET)
            .with_context(|| format!("cannot make {SOCKET} in --run-dir {}", run_dir.display()))?;
        Ok(Self {
            socket,
            sockets,
            successor: Successor::None,
        })
    }

    /// The next step of a successor, or why it goes no further: then it has to be [let go](Self::let_go). Cancelling
    /// it loses nothing.
    pub(in crate::app) async fn next(&mut self) -> io::Result<Step> {
        match &mut self.successor {
            Successor::None => {
                let (stream, _) = self.socket.listener.accept().await?;
                if !is_trusted(&stream)? {
                    return Err(io::Error::new(
                        io::ErrorKind::PermissionDenied,
                        "it runs as another user",
                    ));
                }
                tracing::info!("handing over to a successor");
                self.successor = Successor::Waiting(stream);
                Ok(Step::Came)
            }
            Successor::Waiting(_) => pending().await,
            Successor::Reading(sending) => {
                self.successor = Successor::GettingReady(sending.await?);
                Ok(Step::TookOffer)
            }
            Successor::GettingReady(stream) => match stream.read_u8().await? {
                READY => Ok(Step::Ready),
                _ => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it does not speak our protocol",
                )),
            },
        }
    }

    /// Offers the sockets to the successor that came, and tells it which nodes to expect.
    pub(in crate::app) fn offer(&mut self, nodes: Vec<NodeName>) {
        let Successor::Waiting(mut stream) = mem::replace(&mut self.successor, Successor::None)
        else {
            return;
        };
        let offer = (self.sockets)().map(|offer| offer.with_nodes(nodes));
        self.successor = Successor::Reading(Box::pin(async move {
            offer?.send(&mut stream).await?;
            Ok(stream)
        }));
    }

    /// Lets the successor go, and waits for the next one.
    pub(in crate::app) fn let_go(&mut self) {
        self.successor = Successor::None;
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::app::socket_takeover::{Offer, Predecessor};

    fn old_process(run_dir: &Path) -> OldProcess {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = move || Ok(Offer::new(vec![listener.try_clone()?]));
        OldProcess::new(run_dir, Box::new(sockets)).unwrap()
    }

    async fn takes_offer(old: &mut OldProcess, run_dir: &Path) -> Predecessor {
        let finding = Predecessor::find(run_dir);
        let offering = async {
            assert_eq!(old.next().await.unwrap(), Step::Came);
            old.offer(vec!["edge-1".parse().unwrap()]);
            assert_eq!(old.next().await.unwrap(), Step::TookOffer);
        };
        let (found, ()) = tokio::join!(finding, offering);
        let (predecessor, offer) = found.unwrap().unwrap();
        assert_eq!(offer.nodes, ["edge-1".parse().unwrap()]);
        predecessor
    }

    #[tokio::test]
    async fn a_successor_comes_takes_the_offer_and_gets_ready() {
        let run_dir = tempfile::tempdir().unwrap();
        let mut old = old_process(run_dir.path());
        let predecessor = takes_offer(&mut old, run_dir.path()).await;
        predecessor.still_waits().unwrap();
        predecessor.dismiss().await;
        assert_eq!(old.next().await.unwrap(), Step::Ready);
    }

    #[tokio::test]
    async fn after_one_that_has_gone_the_next_may_come() {
        let run_dir = tempfile::tempdir().unwrap();
        let mut old = old_process(run_dir.path());
        drop(takes_offer(&mut old, run_dir.path()).await);
        let gone = old.next().await.unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::UnexpectedEof);
        old.let_go();
        takes_offer(&mut old, run_dir.path()).await;
    }

    #[tokio::test]
    async fn one_that_says_something_else_goes_no_further_and_is_told_by_the_end_of_its_stream() {
        let run_dir = tempfile::tempdir().unwrap();
        let mut old = old_process(run_dir.path());
        let mut predecessor = takes_offer(&mut old, run_dir.path()).await;
        predecessor.stream.write_u8(b'X').await.unwrap();
        let error = old.next().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        old.let_go();
        predecessor.stream.readable().await.unwrap();
        assert!(predecessor.still_waits().is_err());
    }
}
