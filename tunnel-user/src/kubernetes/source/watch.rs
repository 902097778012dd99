//! One watch on the API server that never gives up, and says how it stands.
//!
//! `kube`'s watcher resumes where it broke and lists anew where it must. What it does not say is
//! that it works again: on a quiet cluster nothing may arrive for hours. So after an error one
//! small request is made first; once it is answered, the watcher goes on.

use std::time::Duration;

use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use kube::{
    Api,
    api::ListParams,
    runtime::watcher::{self, Event, watcher},
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use crate::backoff::Backoff;

/// The API server ends a watch after this many seconds, and it is made anew from the same point. A
/// connection that died in silence is found soon after.
const WATCH_SECONDS: u32 = 30;
/// Objects of a list that are in memory at once, as the API server wrote them.
const PAGE: u32 = 200;
/// An API server that takes longer for one object is away.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is heard of objects of one kind.
pub(super) enum News<K> {
    /// Something happened to them.
    Event(Event<K>),
    /// Nothing can be heard; the newest cause.
    Lost(String),
    /// The API server answers again.
    Back,
}

struct Watch<K> {
    api: Api<K>,
    /// Names the smallest part of what is watched, so that it needs no other permission.
    probe: ListParams,
    events: BoxStream<'static, Result<Event<K>, watcher::Error>>,
    backoff: Backoff,
    state: State,
}

enum State {
    /// As far as anybody knows.
    Working { since: Instant },
    /// To be tried again after this time.
    Broken { wait: Duration },
}

/// Watches all objects of `api`, or the one of that name, for ever.
pub(super) fn follow<K>(api: Api<K>, name: Option<&str>) -> BoxStream<'static, News<K>>
where
    K: kube::Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let mut config = watcher::Config::default()
        .timeout(WATCH_SECONDS)
        .page_size(PAGE);
    let mut probe = ListParams::default().limit(1);
    if let Some(name) = name {
        let field = format!("metadata.name={name}");
        config = config.fields(&field);
        probe = probe.fields(&field);
    }
    let watch = Watch {
        events: watcher(api.clone(), config).boxed(),
        api,
        probe,
        backoff: Backoff::default(),
        state: State::working(),
    };
    stream::unfold(watch, |mut watch| async {
        let news = watch.next().await;
        Some((news, watch))
    })
    .boxed()
}

impl<K> Watch<K>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    async fn next(&mut self) -> News<K> {
        match self.state {
            State::Working { since } => self.hear(since).await,
            State::Broken { wait } => {
                sleep(wait).await;
                self.probe().await
            }
        }
    }

    async fn hear(&mut self, since: Instant) -> News<K> {
        match self.events.next().await {
            Some(Ok(event)) => News::Event(event),
            Some(Err(error)) => self.lost(cause(&error), since.elapsed()),
            // The watcher has no end.
            None => std::future::pending().await,
        }
    }

    async fn probe(&mut self) -> News<K> {
        let error = match timeout(PATIENCE, self.api.list(&self.probe)).await {
            Ok(Ok(_)) => {
                self.state = State::working();
                return News::Back;
            }
            Ok(Err(error)) => cause(&error),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        self.lost(error, Duration::ZERO)
    }

    fn lost(&mut self, error: String, worked: Duration) -> News<K> {
        let wait = self.backoff.after(worked);
        self.state = State::Broken { wait };
        News::Lost(error)
    }
}

impl State {
    fn working() -> Self {
        let since = Instant::now();
        Self::Working { since }
    }
}

/// An error with its causes, as one line; some of `kube`'s contain the text of their cause already.
fn cause(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        next = cause.source();
    }
    line
}
