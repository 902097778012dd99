//! The halves of a [`Stream`] on HTTP/2: what of `h2` a carried connection needs.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use http::StatusCode;

use super::grpc::capacity;
use crate::tunnel::transport::{ResetReason, Stream, StreamError};

/// Sends one connection's bytes.
pub(crate) struct SendHalf(SendStream<Bytes>);

/// Receives one connection's bytes.
pub(crate) struct ReceiveHalf(Receiving);

enum Receiving {
    /// This end has opened the stream, and may send already.
    Asked(ResponseFuture),
    Open(RecvStream),
}

impl Stream {
    /// A stream that this end has opened.
    pub(super) fn asked(response: ResponseFuture, send: SendStream<Bytes>) -> Self {
        Self {
            send: SendHalf(send),
            receive: ReceiveHalf(Receiving::Asked(response)),
        }
    }

    /// A stream that the other end has opened.
    pub(super) fn open(request: RecvStream, send: SendStream<Bytes>) -> Self {
        Self {
            send: SendHalf(send),
            receive: ReceiveHalf(Receiving::Open(request)),
        }
    }
}

impl SendHalf {
    /// The stream's number within its session. Numbers rise, and no session has one twice.
    pub(crate) fn number(&self) -> u32 {
        self.0.stream_id().as_u32()
    }

    /// Waits until flow control lets something through, `wanted` bytes if possible, and says how much. It stays
    /// reserved until it is used or [given back](Self::give_room_back).
    pub(crate) async fn room(&mut self, wanted: usize) -> Result<usize, StreamError> {
        self.0.reserve_capacity(wanted);
        match capacity(&mut self.0).await? {
            Some(room) => Ok(room),
            // No longer streaming: the other end has reset it.
            None => Err(self.until_reset().await),
        }
    }

    /// Leaves what is reserved to other connections of the session.
    pub(crate) fn give_room_back(&mut self) {
        self.0.reserve_capacity(0);
    }

    /// Sends bytes for which there is room.
    pub(crate) fn send(&mut self, data: Bytes) -> Result<(), StreamError> {
        Ok(self.0.send_data(data, false)?)
    }

    /// Nothing more will be sent; the other half goes on.
    pub(crate) fn finish(&mut self) -> Result<(), StreamError> {
        Ok(self.0.send_data(Bytes::new(), true)?)
    }

    /// Gives the whole stream up; the other end hears [`ResetReason::GaveUp`].
    pub(crate) fn reset(&mut self) {
        self.0.send_reset(Reason::CANCEL);
    }

    /// Resolves when the other end has reset the stream, or the session has ended.
    pub(crate) async fn until_reset(&mut self) -> StreamError {
        match poll_fn(|cx| self.0.poll_reset(cx)).await {
            Ok(reason) => StreamError::Reset(reason.into()),
            Err(error) => error.into(),
        }
    }
}

impl ReceiveHalf {
    /// The next bytes; `None` after the last. Dropping it loses nothing.
    pub(crate) async fn data(&mut self) -> Option<Result<Bytes, StreamError>> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        loop {
            let answer = match &mut self.0 {
                Receiving::Open(stream) => return stream.poll_data(cx).map_err(Into::into),
                Receiving::Asked(response) => ready!(Pin::new(response).poll(cx)),
            };
            match answer {
                Ok(answer) if answer.status() == StatusCode::OK => {
                    self.0 = Receiving::Open(answer.into_body());
                }
                // The client has left, or the server ran out of patience.
                Ok(_) => return Poll::Ready(Some(Err(StreamError::Reset(ResetReason::GaveUp)))),
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    /// Lets the other end send so many bytes again.
    pub(crate) fn release(&mut self, bytes: usize) -> Result<(), StreamError> {
        match &mut self.0 {
            Receiving::Open(stream) => Ok(stream.flow_control().release_capacity(bytes)?),
            Receiving::Asked(_) => Ok(()),
        }
    }

    /// Makes the stream's window larger, or smaller, by so many bytes.
    pub(crate) fn widen(&mut self, bytes: isize) -> Result<(), StreamError> {
        match &mut self.0 {
            Receiving::Open(stream) => {
                Ok(stream.flow_control().adjust_target_window_size(bytes)?)
            }
            Receiving::Asked(_) => Ok(()),
        }
    }
}

impl From<h2::Error> for StreamError {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() => Self::Reset(reason.into()),
            Some(_) | None => Self::SessionEnded(Box::new(error)),
        }
    }
}

impl From<Reason> for ResetReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::CANCEL => Self::GaveUp,
            other => Self::Protocol(other.into()),
        }
    }
}
