//! HTTP/2 as the tunnel uses it: the limits of a session, and the watch over its peer.
//!
//! The tunnel speaks to `h2` directly: a stream can then be reset at any moment, even while it
//! waits for flow control, and its bytes reach the socket without a copy.

mod activity;
mod client;
pub(crate) mod grpc;
mod halves;
mod keepalive;
mod read_ahead;
mod round_trip;
mod segments;
mod server;
mod shared_socket;
mod window_setting;

use std::time::Duration;

pub(crate) use self::{
    activity::{Activity, Watched},
    client::{ClientConnection, Opener},
    halves::{ReceiveHalf, SendHalf},
    keepalive::{Lost, Patience, until_silent},
    read_ahead::ReadAhead,
    round_trip::RoundTrip,
    segments::Segments,
    server::{Call, OfferedStream, ServerBuilder, ServerConnection},
    shared_socket::SharedSocket,
    window_setting::WindowSetting,
};
use crate::tunnel::{
    Settings,
    settings::{FRAME_SIZE, SESSION_WINDOW},
};

/// Streams that a session needs besides those of its connections: the control stream, and
/// renewals.
const OTHER_STREAMS: u32 = 16;
/// Streams that a peer without a certificate may open: it has nothing to do but enrol.
const STRANGER_STREAMS: u32 = 4;
/// gRPC metadata is small; a peer that sends more is not one of ours.
const HEADER_LIST_SIZE: u32 = 16 * 1024;

/// Bytes of one connection that wait to be sent: a frame, and one more while that is written.
const SEND_BUFFER: usize = 2 * FRAME_SIZE as usize;
/// What frames that nobody has taken out of `h2` may cost it beyond their payload, for one session:
/// with the session's window its own guess would be a GiB. Connections take theirs out at once, so
/// only a peer that means harm gets here, and loses its session. 258,000 frames of one byte.
const SMALL_FRAMES_BUDGET: usize = 64 << 20;

/// How long `h2` remembers a stream that this end has reset: frames of it that were on their way until then are dropped
/// without an answer. On a slow link what a client leaves behind takes a while.
const RESET_MEMORY: Duration = Duration::from_secs(30);
/// Frames that may come later than that, in all the life of a session: by its default `h2` ends it with the 1024th. The
/// agent trusts its server with any number; each costs a server memory until its answer is sent, and an agent may
/// refuse to take answers.
const LATE_FRAMES_OF_AGENT: Option<usize> = Some(1 << 13);
const LATE_FRAMES_OF_SERVER: Option<usize> = None;

/// The server's end of a session whose connections begin with that window.
pub(crate) fn server(settings: &Settings, window: u32) -> ServerBuilder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_connection_window_size(SESSION_WINDOW)
        .initial_window_size(window)
        .max_frame_size(FRAME_SIZE)
        .max_header_list_size(HEADER_LIST_SIZE)
        .max_concurrent_streams(settings.max_connections + OTHER_STREAMS)
        // Clients leave while their streams wait to be accepted; that is no attack.
        .max_pending_accept_reset_streams(settings.max_connections as usize)
        .max_concurrent_reset_streams(settings.max_connections as usize)
        .reset_stream_duration(RESET_MEMORY)
        .max_local_error_reset_streams(LATE_FRAMES_OF_AGENT)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(SMALL_FRAMES_BUDGET);
    builder
}

/// The server's end of a connection whose peer has not proved who it is.
pub(crate) fn server_for_strangers() -> ServerBuilder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_header_list_size(HEADER_LIST_SIZE)
        .max_concurrent_streams(STRANGER_STREAMS);
    builder
}

/// The agent's end of a session, likewise.
fn client_builder(settings: &Settings, window: u32) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_connection_window_size(SESSION_WINDOW)
        .initial_window_size(window)
        .max_frame_size(FRAME_SIZE)
        .max_header_list_size(HEADER_LIST_SIZE)
        .max_concurrent_reset_streams(settings.max_connections as usize)
        .reset_stream_duration(RESET_MEMORY)
        .max_local_error_reset_streams(LATE_FRAMES_OF_SERVER)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(SMALL_FRAMES_BUDGET);
    builder
}

#[cfg(test)]
mod tests;
