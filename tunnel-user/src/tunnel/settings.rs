//! The tunnel's limits, and what they add up to.

use std::time::Duration;

/// HTTP/2's largest window. The window of a session is never the limit: were it shared out among
/// its connections, unread data of one stopped reader would hold back all the others. Memory is
/// bounded by the windows of the connections and their number instead.
pub(crate) const SESSION_WINDOW: u32 = (1 << 31) - 1;

/// The largest DATA frame: one read from a socket, and the longest that one connection's bytes
/// keep another's waiting on a slow link.
pub(crate) const FRAME_SIZE: u32 = 64 * 1024;

/// What one read from a session's socket takes. By itself rustls asks for 4 KiB at a time, which
/// makes sixteen system calls of one frame.
pub(crate) const READ_AHEAD: usize = 64 * 1024;

/// A day: who watches something for longer than that begins anew some time.
const OVERTIME: Duration = Duration::from_hours(24);

/// Limits of one session; both ends have their own.
///
/// Each end holds at most `2 * connection_window` bytes for a connection (unread data received,
/// unsent data taken from the socket) plus one frame, and `max_connections` of these for a
/// session. A connection that is idle holds no buffer at all.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes of one connection, in each direction, that wait for a slow reader.
    pub connection_window: u32,
    /// Connections that one session carries at a time.
    pub max_connections: u32,
    /// Silence after which the peer is asked whether it is still there.
    pub keepalive_interval: Duration,
    /// Silence after that question which ends the session.
    pub keepalive_timeout: Duration,
    /// The longest that a dial may take, from the request to the first byte carried.
    pub dial_timeout: Duration,
    /// How long what a session carries may outlive its agent's certificate, where the agent has a
    /// newer one.
    pub overtime: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connection_window: 256 * 1024,
            max_connections: 8192,
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(5),
            overtime: OVERTIME,
        }
    }
}
