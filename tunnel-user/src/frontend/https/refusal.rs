//! Why a client is not carried: what it hears, what is counted, and what the log says.

use super::client_hello::HelloError;
use crate::{observability::metrics::HttpsRefusal, strangers::Left};

/// Why a client is not carried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// It did not say which node it means.
    #[error(
        "it names no server (SNI), as one does that dials an address: dial the node by name, or by its own address"
    )]
    NoServerName,
    /// No node has the name.
    #[error("there is no node {0:?}")]
    UnknownName(String),
    /// It may be several nodes'.
    #[error("{0:?} begins with the names of several nodes: leave the domain out")]
    AmbiguousName(String),
    /// What it says is no hello.
    #[error("it sent {}", sent(*.0))]
    Hello(HelloError),
    /// It has said nothing, or not enough.
    #[error("its part of the handshake did not come: {0}")]
    NoHello(NoHello),
    /// It may not use this port.
    #[error(
        "this port leads to a node's loopback, which is for this machine's own processes: see --loopback-port-clients"
    )]
    NotAllowed,
    /// The node could not be dialled; the cause has been told.
    #[error("its node could not be dialled")]
    DialFailed,
    /// Its TLS was to end here, and there is none. It has heard why.
    #[error("no TLS with this server: {0}")]
    Handshake(String),
    /// Its TLS was to end here, and there is no room.
    #[error("as many clients are here as may be whose TLS ends here")]
    TooMany,
}

/// Why a hello did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoHello {
    /// The time is over.
    #[error("it took too long")]
    TooSlow,
    /// Somebody else needed the place.
    #[error("it made room for others")]
    Evicted,
    /// The client has gone.
    #[error("it has left")]
    Left,
}

/// What ends a handshake ([RFC 8446], section 6.2).
///
/// [RFC 8446]: https://www.rfc-editor.org/rfc/rfc8446
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Alert {
    UnexpectedMessage = 10,
    IllegalParameter = 47,
    AccessDenied = 49,
    DecodeError = 50,
    InternalError = 80,
    MissingExtension = 109,
    UnrecognizedName = 112,
}

impl Refusal {
    /// What the client hears; nothing, if there is nobody to hear it or nothing that it could make of it.
    pub(super) fn alert(&self) -> Option<Alert> {
        match self {
            Self::NoServerName => Some(Alert::MissingExtension),
            Self::UnknownName(_) | Self::AmbiguousName(_) => Some(Alert::UnrecognizedName),
            Self::Hello(HelloError::NotTls) => Some(Alert::UnexpectedMessage),
            Self::Hello(HelloError::Malformed) => Some(Alert::DecodeError),
            Self::Hello(HelloError::TooLong) => Some(Alert::IllegalParameter),
            Self::DialFailed | Self::TooMany => Some(Alert::InternalError),
            Self::NotAllowed => Some(Alert::AccessDenied),
            Self::NoHello(_) | Self::Handshake(_) => None,
        }
    }

    pub(super) fn reason(&self) -> HttpsRefusal {
        match self {
            Self::NoServerName => HttpsRefusal::NoServerName,
            Self::UnknownName(_) | Self::AmbiguousName(_) => HttpsRefusal::UnknownName,
            Self::Hello(HelloError::NotTls) => HttpsRefusal::NotTls,
            Self::Hello(HelloError::Malformed) => HttpsRefusal::Malformed,
            Self::Hello(HelloError::TooLong) => HttpsRefusal::TooLong,
            Self::NoHello(NoHello::TooSlow) => HttpsRefusal::TooSlow,
            Self::NoHello(NoHello::Evicted) => HttpsRefusal::Evicted,
            Self::NoHello(NoHello::Left) => HttpsRefusal::Left,
            Self::NotAllowed => HttpsRefusal::NotAllowed,
            Self::DialFailed => HttpsRefusal::DialFailed,
            Self::Handshake(_) => HttpsRefusal::HandshakeFailed,
            Self::TooMany => HttpsRefusal::TooMany,
        }
    }

    /// Whether it is worth a line by default: load balancers look whether a port is open, and the dialler has told
    /// why it failed.
    pub(super) fn is_news(&self) -> bool {
        !matches!(self, Self::NoHello(NoHello::Left) | Self::DialFailed)
    }
}

impl From<Left> for Refusal {
    fn from(left: Left) -> Self {
        Self::NoHello(match left {
            Left::TooSlow | Left::TooBusy => NoHello::TooSlow,
            Left::Evicted => NoHello::Evicted,
            Left::Failed(_) => NoHello::Left,
        })
    }
}

impl Alert {
    /// A record with the alert, which is fatal. Its version is what every client takes that has not agreed on one.
    pub(super) fn record(self) -> [u8; 7] {
        [21, 3, 3, 0, 2, 2, self as u8]
    }
}

fn sent(error: HelloError) -> &'static str {
    match error {
        HelloError::NotTls => "no TLS: plain HTTP has other ports",
        HelloError::Malformed => "a ClientHello that breaks the rules of TLS",
        HelloError::TooLong => "a ClientHello that is too long, or in too many pieces",
    }
}
