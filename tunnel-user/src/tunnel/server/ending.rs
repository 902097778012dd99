//! How a session ends, as its server sees it.

use crate::tunnel::transport::http2::Lost;

/// Why a caller is served no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    ClosedByAgent,
    /// TCP, TLS or HTTP/2 has failed.
    ConnectionFailed,
    Lost(Lost),
    /// It registered no session in time.
    Unregistered,
    /// Its certificate has been over for longer than a session may go on.
    CertificateOver,
    /// Nothing is wrong with it.
    EndedHere,
}

impl Ending {
    /// As the log has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ClosedByAgent => "closed by the agent",
            Self::ConnectionFailed => "connection failed",
            Self::Lost(lost) => lost.as_str("the agent fell silent"),
            Self::Unregistered => "no session",
            Self::CertificateOver => "its certificate ended too long ago",
            Self::EndedHere => "ended by this server",
        }
    }
}
