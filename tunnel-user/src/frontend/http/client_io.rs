//! A client's socket, or the TLS on it, as hyper has it: tells when bytes come, and says why where hyper only says that
//! it cannot read a head.
//!
//! hyper answers such a head by itself, with a bare code. Nobody has asked for an answer then, and that is how its
//! words are known: ours take their place.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{HEAD_FIELDS, HEAD_SIZE, refusal::Refusal, visit::Visit};

/// Hears of what could not be read.
pub(super) type OnUnread = Arc<dyn Fn(&Refusal) + Send + Sync>;

pub(super) struct ClientIo<S> {
    stream: S,
    visit: Arc<Visit>,
    on_unread: OnUnread,
    /// What is left of our own words.
    last_words: Option<Bytes>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientIo<S> {
    pub(super) fn new(stream: S, visit: Arc<Visit>, on_unread: OnUnread) -> Self {
        Self {
            stream,
            visit,
            on_unread,
            last_words: None,
        }
    }

    fn say_why(&mut self, bare: &[u8]) {
        let refusal = why(bare);
        (self.on_unread)(&refusal);
        self.last_words = Some(refusal.as_last_words().into());
    }

    fn poll_last_words(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(words) = self.last_words.as_mut().filter(|words| !words.is_empty()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, words))?;
            words.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.visit.heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.visit.owes_answer() {
            return Pin::new(&mut self.stream).poll_write(cx, buf);
        }
        if self.last_words.is_none() {
            self.say_why(buf);
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_last_words(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.visit.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_last_words(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn why(bare: &[u8]) -> Refusal {
    match bare.get(9..12) {
        Some(b"431") => Refusal::HeadTooLarge {
            most: HEAD_SIZE,
            fields: HEAD_FIELDS,
        },
        Some(b"414") => Refusal::UrlTooLong,
        _ => Refusal::BadHead,
    }
}
