//! The admin socket: what `culvert status` talks to, for root on this machine alone.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{Json, Router, extract::State, routing::get};
use futures_util::future::BoxFuture;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::{
    http_server,
    private_socket::{PrivateSocket, SocketFile},
    status::StatusReport,
};

/// The socket's name in the run directory.
const SOCKET: &str = "admin.sock";

/// Makes the report of the moment it is called.
pub type MakeStatus = Arc<dyn Fn() -> BoxFuture<'static, StatusReport> + Send + Sync>;

/// What to do when another process listens on the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConflict {
    /// Leave it alone and fail.
    Respect,
    /// Take the name from it: it hands over to us.
    Replace,
}

/// Serves the admin socket. The socket's file is removed when this is dropped, unless a successor
/// took the name.
#[derive(Debug)]
pub struct AdminServer {
    listener: UnixListener,
    routes: Router,
    file: SocketFile,
}

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Another process serves it.
    #[error(
        "already running{}: {} is in use; stop that process, or give this one another --run-dir",
        pid.map_or_else(String::new, |pid| format!(" (pid {pid})")),
        socket.display()
    )]
    AlreadyRunning {
        /// The socket in use.
        socket: PathBuf,
        /// Who uses it, if the kernel tells.
        pid: Option<i32>,
    },
    /// The file system or the kernel does not let us have it.
    #[error(
        "cannot make the admin socket {}: give a --run-dir that this user may write to",
        socket.display()
    )]
    Unusable {
        /// The socket wanted.
        socket: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl AdminServer {
    /// Makes the socket in `run_dir`, and the directory if it is missing. What a dead process left
    /// behind is replaced.
    pub async fn new(
        run_dir: &Path,
        on_conflict: OnConflict,
        make_status: MakeStatus,
    ) -> Result<Self, AdminError> {
        let socket = socket_path(run_dir);
        if on_conflict == OnConflict::Respect
            && let Ok(stream) = UnixStream::connect(&socket).await
        {
            let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
            return Err(AdminError::AlreadyRunning { socket, pid });
        }
        let PrivateSocket { listener, file } = PrivateSocket::bind(run_dir, SOCKET)
            .map_err(|source| AdminError::Unusable { socket, source })?;
        let routes = Router::new()
            .route("/status", get(status))
            .with_state(make_status);
        Ok(Self {
            listener,
            routes,
            file,
        })
    }

    /// Serves until the shutdown.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let _removed_at_the_end = self.file;
        http_server::serve(self.listener, self.routes, shutdown).await;
        Ok(())
    }
}

/// Where the admin socket of a run directory is.
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join(SOCKET)
}

async fn status(State(make_status): State<MakeStatus>) -> Json<StatusReport> {
    Json(make_status().await)
}
