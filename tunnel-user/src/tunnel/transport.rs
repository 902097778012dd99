//! How carried connections travel between the two ends of a session.
//!
//! ```text
//!   carry, StreamIo                     what a socket, or a program, has to say
//!        |
//!     Stream = SendHalf + ReceiveHalf   flow control, half-close, reset with a reason
//!        |
//!     http2                             one HTTP/2 stream for each connection
//! ```
//! A [`Stream`] is all that the rest of the tunnel sees. Only [`http2`] names the types of its library, so that
//! another way to carry a connection changes nothing above it.

pub(crate) mod http2;
mod stream;

pub(crate) use self::stream::Stream;
pub use self::stream::{ResetReason, StreamError};
