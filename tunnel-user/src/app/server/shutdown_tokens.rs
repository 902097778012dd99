//! What tells a server's tasks to end, by what ends then.

use tokio_util::sync::CancellationToken;

/// In the order in which they come.
#[derive(Default)]
pub(super) struct ShutdownTokens {
    /// Of what is queued at the client listeners: cancelled before the service is, where a successor accepts from the
    /// same queue.
    pub(super) queue: CancellationToken,
    /// Accepting clients, and what else speaks for this machine's server.
    pub(super) service: CancellationToken,
    /// The clients that are left.
    pub(super) clients: CancellationToken,
    /// Every session.
    pub(super) sessions: CancellationToken,
    /// Answering on the meta port.
    pub(super) meta: CancellationToken,
    /// Everything else.
    pub(super) everything: CancellationToken,
}
