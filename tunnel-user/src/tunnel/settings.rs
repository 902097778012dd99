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

/// A billion connections after the first, and a million before HTTP/2 has no number left ([RFC 9113], section 5.1.1).
///
/// [RFC 9113]: https://www.rfc-editor.org/rfc/rfc9113#section-5.1.1
const LAST_STREAM: u32 = (1 << 31) - (1 << 21);

/// The window with which a connection begins, and which one that is not read keeps: enough for a network nearby.
const FIRST_WINDOW: u32 = 256 * 1024;

/// Limits of one session; both ends have their own.
///
/// For a connection that is not read, an end holds its first window, and of what it has taken from the socket the same
/// and one frame; there are up to `max_connections` of these. What windows have grown by then may be held besides,
/// `session_memory` of all together. A connection that is idle holds no buffer at all.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The most bytes of one connection, in each direction, that may be under way or wait for its reader.
    pub connection_window: u32,
    /// What the windows of a session's connections may be larger than the first, all together.
    pub session_memory: u64,
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
    /// The number of a stream with which an agent begins to look for another session: streams have odd numbers, none
    /// twice, and there are only so many.
    pub last_stream: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connection_window: 16 << 20,
            session_memory: 64 << 20,
            max_connections: 8192,
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(5),
            overtime: OVERTIME,
            last_stream: LAST_STREAM,
        }
    }
}

impl Settings {
    /// The window with which a connection begins.
    pub fn first_window(&self) -> u32 {
        self.connection_window.min(FIRST_WINDOW)
    }
}
