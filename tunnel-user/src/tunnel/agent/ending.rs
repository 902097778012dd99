//! How a session ends, as its agent sees it.

use super::paths::Suspicion;
use crate::tunnel::{client_io::IoEnd, transport::http2::Lost};

/// The end of a session, and what it says of the path to the server.
pub(super) struct Ending {
    pub(super) reason: EndReason,
    pub(super) suspicion: Option<Suspicion>,
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndReason {
    ClosedByServer,
    /// TCP, TLS or HTTP/2 has failed.
    ConnectionFailed,
    /// The server ended the control stream with an error.
    ControlFailed,
    Lost(Lost),
    /// Its last connection has ended after it was asked to drain.
    Drained,
    EndedHere,
}

impl EndReason {
    /// As the log and `status` have it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ClosedByServer => "closed by the server",
            Self::ConnectionFailed => "connection failed",
            Self::ControlFailed => "control stream failed",
            Self::Lost(lost) => lost.as_str("the server fell silent"),
            Self::Drained => "drained",
            Self::EndedHere => "ended by this agent",
        }
    }
}

impl From<IoEnd> for EndReason {
    fn from(end: IoEnd) -> Self {
        match end {
            IoEnd::ClosedByServer => Self::ClosedByServer,
            IoEnd::ConnectionFailed => Self::ConnectionFailed,
            IoEnd::Lost(lost) => Self::Lost(lost),
            IoEnd::EndedHere => Self::EndedHere,
        }
    }
}
