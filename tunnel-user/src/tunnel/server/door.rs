//! The door: accepts callers, and keeps each until it has sent a whole `ClientHello`.
//!
//! ```text
//!  accept --> connecting --ClientHello--> a place for its handshake --Arrived--> AgentListener
//! ```
//! It has a thread and a runtime of its own. A crowd of agents keeps the other threads busy with handshakes for
//! seconds: if callers were accepted in turn with those, the kernel's queue would overflow meanwhile, and whoever
//! is turned away there tries again after pauses that double. And strangers, who get no further than here, cost
//! agents no more than one thread's share of the processors.

use std::{io, thread, time::Duration};

use rustls::server::{Accepted, Acceptor};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime,
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};
use tokio_rustls::LazyConfigAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{arriving::tell, preauth::PreAuthLimiter};
use crate::{
    bind::into_tokio,
    model::PeerAddr,
    strangers::{Left, Permit, Source, within},
    tunnel::transport::http2::ReadAhead,
};

/// The longest wait for what a caller says first. An agent says it with the packet that connects, or
/// in the next one.
const HELLO_TIME: Duration = Duration::from_secs(3);
/// The longest wait for a place to shake hands in.
const PLACE_TIME: Duration = Duration::from_secs(10);
/// The pause after a failed accept: usually the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A caller that has sent a whole `ClientHello`, and its place to shake hands in.
pub(super) struct Arrived {
    pub(super) peer: PeerAddr,
    pub(super) hello: Accepted,
    /// Of no runtime: it goes to another one.
    pub(super) socket: ReadAhead<std::net::TcpStream>,
    pub(super) permit: Permit,
}

/// Accepts callers while `accepting` says so.
pub(super) struct Door {
    pub(super) listener: std::net::TcpListener,
    pub(super) limiter: PreAuthLimiter,
    pub(super) accepting: watch::Receiver<bool>,
    /// `door --callers with a place--> listener`
    pub(super) arrived_tx: mpsc::Sender<Arrived>,
}

impl Door {
    /// Accepts until `end`, on a thread of its own that ends with it.
    ///
    /// # Errors
    /// When there can be no thread or no runtime, or the socket cannot be watched.
    pub(super) async fn run(self, end: CancellationToken) -> io::Result<()> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (result_tx, result_rx) = oneshot::channel();
        let thread = thread::Builder::new().name("door".into()).spawn(move || {
            let accepting = end.run_until_cancelled(self.accept());
            let result = runtime.block_on(accepting).unwrap_or(Ok(()));
            // Nobody waits where the whole program ends.
            let _ = result_tx.send(result);
        })?;
        match result_rx.await {
            Ok(result) => result,
            Err(_) => match thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => Ok(()),
            },
        }
    }

    /// A server that hands over stops accepting first, and goes on if that fails.
    async fn accept(self) -> io::Result<()> {
        let Self {
            listener,
            limiter,
            mut accepting,
            arrived_tx,
        } = self;
        let listener = into_tokio(listener)?;
        let arrivals = TaskTracker::new();
        loop {
            let accepts = *accepting.borrow_and_update();
            let accepted = tokio::select! {
                accepted = accept_one(&listener, &limiter), if accepts => accepted,
                changed = accepting.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => break,
                },
            };
            let Some((stream, peer, permit)) = accepted else {
                continue;
            };
            let (limiter, arrived_tx) = (limiter.clone(), arrived_tx.clone());
            arrivals.spawn(async move {
                match arrive(stream, peer, permit, &limiter).await {
                    // Has room for all who have a place; fails where the server ends.
                    Ok(arrived) => drop(arrived_tx.send(arrived).await),
                    Err(left) => tell(peer, &left),
                }
            });
        }
        drop(listener);
        arrivals.close();
        arrivals.wait().await;
        Ok(())
    }
}

async fn accept_one(
    listener: &TcpListener,
    limiter: &PreAuthLimiter,
) -> Option<(TcpStream, PeerAddr, Permit)> {
    limiter.room().await;
    match listener.accept().await {
        Ok((stream, peer)) => {
            let peer = PeerAddr::of(peer);
            Some((stream, peer, limiter.connecting(source(peer))))
        }
        Err(error) => {
            tracing::warn!(%error, "cannot accept agents");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Waits for what the caller says first, and for its place.
async fn arrive(
    stream: TcpStream,
    peer: PeerAddr,
    permit: Permit,
    limiter: &PreAuthLimiter,
) -> Result<Arrived, Left> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot disable Nagle's algorithm");
    }
    let hello = LazyConfigAcceptor::new(Acceptor::default(), ReadAhead::new(stream));
    let hello = within(HELLO_TIME, &permit, hello).await?;
    // To answer costs time on the processor: those whose turn it is are served to the end.
    let place = timeout(PLACE_TIME, limiter.handshaking(source(peer))).await;
    Ok(Arrived {
        peer,
        hello: hello.accepted,
        socket: hello.io.try_map(TcpStream::into_std)?,
        permit: place.map_err(|_elapsed| Left::TooBusy)?,
    })
}

pub(super) fn source(peer: PeerAddr) -> Source {
    Source::of(peer.0.ip())
}
