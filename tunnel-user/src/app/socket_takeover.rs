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
mod old_process;

use std::{io, path::Path, time::Duration};

use anyhow::Context as _;
use tokio::{io::AsyncWriteExt as _, net::UnixStream, time::timeout};

pub(super) use self::{
    offer::{MakeOffer, Offer},
    old_process::{OldProcess, Step},
};
use crate::observability::private_socket::is_trusted;

/// The socket's name in the run directory.
const SOCKET: &str = "handover.sock";
/// What a successor says when it accepts clients.
const READY: u8 = b'R';
/// The longest that the other side may take to give or read an offer.
pub(super) const OFFER_TIME: Duration = Duration::from_secs(5);
/// The longest that a successor may take to get ready.
pub(super) const READY_TIME: Duration = Duration::from_mins(1);

/// A running server that this one takes over from.
pub(super) struct Predecessor {
    stream: UnixStream,
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
