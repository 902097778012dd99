//! Bodies on their way, frame by frame: nothing is kept of them, and trailers pass.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::{upstream::Lease, visit::Answering};

/// The body of an answer. The request is under way until it is dropped.
pub(super) struct Body {
    content: Content,
    answering: Option<Answering>,
}

enum Content {
    /// Of our own.
    Text(Option<Bytes>),
    /// Of the target's.
    Target(Incoming, Option<Lease>),
}

/// The body of a request.
pub(super) struct Upload {
    content: Option<Incoming>,
    /// Not a byte is asked for before this.
    go_ahead: Option<BoxFuture<'static, ()>>,
    /// Whether all of it has been handed on.
    is_over: Arc<AtomicBool>,
}

impl Body {
    pub(super) fn text(text: String) -> Self {
        Self {
            content: Content::Text(Some(text.into())),
            answering: None,
        }
    }

    pub(super) fn empty() -> Self {
        Self {
            content: Content::Text(None),
            answering: None,
        }
    }

    /// What the target says. Dropping it before its end takes the request back.
    pub(super) fn of_target(incoming: Incoming, lease: Lease) -> Self {
        let mut body = Self {
            content: Content::Target(incoming, Some(lease)),
            answering: None,
        };
        body.finish_if_over();
        body
    }

    /// The same, as the answer to a request that is under way.
    pub(super) fn answering(self, answering: Answering) -> Self {
        let answering = Some(answering);
        Self { answering, ..self }
    }

    /// The target's connection is free for another request once it has said all.
    fn finish_if_over(&mut self) {
        if let Content::Target(incoming, lease) = &mut self.content
            && incoming.is_end_stream()
            && let Some(lease) = lease.take()
        {
            lease.finish();
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = match &mut self.content {
            Content::Text(text) => return Poll::Ready(text.take().map(Frame::data).map(Ok)),
            Content::Target(incoming, lease) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                if let Some(lease) = lease.take_if(|_| frame.is_none()) {
                    lease.finish();
                }
                frame
            }
        };
        self.finish_if_over();
        if let (Some(Err(_)), Some(answering)) = (&frame, &self.answering) {
            answering.cut();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Text(text) => text.is_none(),
            Content::Target(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Text(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Content::Target(incoming, _) => incoming.size_hint(),
        }
    }
}

impl Upload {
    pub(super) fn new(incoming: Incoming) -> Self {
        let content = Some(incoming).filter(|incoming| !incoming.is_end_stream());
        Self {
            is_over: Arc::new(AtomicBool::new(content.is_none())),
            content,
            go_ahead: None,
        }
    }

    /// Nothing, for a request that is sent once more.
    pub(super) fn nothing() -> Self {
        Self {
            content: None,
            go_ahead: None,
            is_over: Arc::new(AtomicBool::new(true)),
        }
    }

    /// The same, of which no byte is asked for before that.
    pub(super) fn after(self, go_ahead: BoxFuture<'static, ()>) -> Self {
        let go_ahead = Some(go_ahead);
        Self { go_ahead, ..self }
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.content.is_none()
    }

    /// Becomes true when all of it has been handed on.
    pub(super) fn is_over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_over)
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        if let Some(go_ahead) = &mut self.go_ahead {
            ready!(go_ahead.as_mut().poll(cx));
            self.go_ahead = None;
        }
        let Some(incoming) = &mut self.content else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
        let is_over = frame.is_none() || incoming.is_end_stream();
        if is_over {
            self.is_over.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let content = self.content.as_ref();
        content.is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let content = self.content.as_ref();
        content.map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}
