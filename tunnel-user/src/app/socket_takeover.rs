//! Upgrade without a gap: a starting server takes the listening sockets over from the one that
//! runs.
//!
//! ```text
//!  new process                                 old process
//!  connect ---------------------------------->  stops accepting agents, leaves the kernel's tables
//!          <------- sockets, nodes with sessions
//!                                               asks agents to open another session
//!  accepts agents, until all have come
//!  writes the tables, accepts clients
//!  ready ------------------------------------>  stops accepting clients, finishes those it has
//! ```
//! The sockets are the same in both processes, so no connection in their queues is lost. If the
//! new process goes away before it is ready, the old one goes on as if nothing had happened.

mod offer;

use std::{io, path::Path, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::watch,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub(super) use self::offer::{MakeOffer, Offer};
use crate::{
    observability::private_socket::{PrivateSocket, is_trusted},
    tunnel::server::Sessions,
};

/// The socket's name in the run directory.
const SOCKET: &str = "handover.sock";
/// What a successor says when it accepts clients.
const READY: u8 = b'R';
/// The longest that the other side may take to give or read an offer.
const OFFER_TIME: Duration = Duration::from_secs(5);
/// The longest that a successor may take to get ready.
const READY_TIME: Duration = Duration::from_mins(1);

/// Waits for a successor.
pub(super) struct OldProcess {
    socket: PrivateSocket,
    sockets: MakeOffer,
    sessions: Sessions,
    in_charge: watch::Sender<bool>,
}

/// A running server that this one takes over from.
pub(super) struct Predecessor {
    stream: UnixStream,
}

impl OldProcess {
    /// Offers what these sockets are then to whoever comes.
    pub(super) fn new(
        run_dir: &Path,
        sockets: MakeOffer,
        sessions: Sessions,
        in_charge: watch::Sender<bool>,
    ) -> anyhow::Result<Self> {
        let socket = PrivateSocket::bind(run_dir, SOCKET)
            .with_context(|| format!("cannot make {SOCKET} in --run-dir {}", run_dir.display()))?;
        Ok(Self {
            socket,
            sockets,
            sessions,
            in_charge,
        })
    }

    /// Resolves once a successor has taken over.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.listener.accept() => accepted,
                () = shutdown.cancelled() => return,
            };
            let handed_over = match accepted {
                Ok((successor, _)) => self.hand_over(successor).await,
                Err(error) => Err(error),
            };
            match handed_over {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, "a successor gave up: this server goes on");
                    self.in_charge.send_replace(true);
                }
            }
        }
    }

    async fn hand_over(&self, mut successor: UnixStream) -> io::Result<()> {
        if !is_trusted(&successor)? {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it runs as another user",
            ));
        }
        tracing::info!("handing over to a successor");
        self.in_charge.send_replace(false);
        let offer = (self.sockets)()?.with_nodes(self.sessions.nodes());
        timeout(OFFER_TIME, offer.send(&mut successor)).await??;
        self.sessions.drain();
        match timeout(READY_TIME, successor.read_u8()).await?? {
            READY => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it does not speak our protocol",
            )),
        }
    }
}

impl Predecessor {
    /// Takes the sockets of the server that uses this run directory, if one does.
    pub(super) async fn find(run_dir: &Path) -> anyhow::Result<Option<(Self, Offer)>> {
        let Ok(mut stream) = UnixStream::connect(run_dir.join(SOCKET)).await else {
            return Ok(None);
        };
        anyhow::ensure!(
            is_trusted(&stream)?,
            "a process of another user uses --run-dir {}: stop it, or name another directory",
            run_dir.display()
        );
        tracing::info!("taking over from the server that is running");
        let offer = timeout(OFFER_TIME, Offer::receive(&mut stream)).await;
        let offer = offer.map_err(io::Error::from).flatten();
        let offer = offer.with_context(|| {
            format!(
                "the server that uses --run-dir {} does not hand over: stop it first",
                run_dir.display()
            )
        })?;
        Ok(Some((Self { stream }, offer)))
    }

    /// Checks that it has not given up waiting: it would go on as if nobody had come, and both would write the kernel's
    /// tables.
    pub(super) fn still_waits(&self) -> anyhow::Result<()> {
        match self.stream.try_read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            _ => anyhow::bail!(
                "the server that runs has waited {READY_TIME:?} for this one, and goes on without it: start this one again"
            ),
        }
    }

    /// Lets it go: this server accepts clients now.
    pub(super) async fn dismiss(mut self) {
        if let Err(error) = self.stream.write_u8(READY).await {
            tracing::info!(%error, "the predecessor had gone already");
        }
    }
}
