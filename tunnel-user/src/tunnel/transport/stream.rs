//! One carried connection, whatever carries it.

use std::{error::Error, fmt};

use super::http2::{ReceiveHalf, SendHalf};

/// A connection between the two ends of a session. Either half ends by itself; a reset ends both.
pub(crate) struct Stream {
    pub(crate) send: SendHalf,
    pub(crate) receive: ReceiveHalf,
}

/// Why a stream takes or gives no more.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The other end has reset it.
    #[error("the other end reset the connection ({0})")]
    Reset(ResetReason),
    /// The session is over, and everything that it carried.
    #[error("the session ended")]
    SessionEnded(#[source] Box<dyn Error + Send + Sync>),
}

/// Why the other end has reset a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetReason {
    /// Its socket failed, its client has left, or it is about to stop.
    GaveUp,
    /// Something went wrong in the protocol, by its number ([RFC 9113], section 7).
    ///
    /// [RFC 9113]: https://www.rfc-editor.org/rfc/rfc9113#section-7
    Protocol(u32),
}

impl fmt::Display for ResetReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GaveUp => f.write_str("it gave the connection up"),
            Self::Protocol(number) => write!(f, "error {number} of HTTP/2"),
        }
    }
}
