//! One watch on the API server that never gives up, and says how it stands.
//!
//! `kube`'s watcher resumes where it broke and lists anew where it must. What it does not say is
//! that it works again: on a quiet cluster nothing may arrive for hours. So after an error one
//! small request is made first; once it is answered, the watcher goes on. And a watch that is silent though there is
//! something to tell is found by [a list](delivered) now and then, and begun anew.

mod delivered;

use std::time::Duration;

use futures_util::{
    StreamExt as _,
    future::{BoxFuture, OptionFuture},
    stream::{self, BoxStream},
};
use kube::{
    Api,
    api::ListParams,
    runtime::watcher::{self, Event, watcher},
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::delivered::{Comparison, DeliveredVersions, Version, version};
use crate::{
    backoff::{Backoff, jittered},
    kubernetes::api_error::describe,
};

/// The API server ends a watch after this many seconds, and it is made anew from the same point. A
/// connection that died in silence is found soon after.
const WATCH_SECONDS: u32 = 30;
/// The same for agents: there are thousands of them, and little of theirs changes.
const SELDOM_WATCH_SECONDS: u32 = 290;
/// How often what was told is held against a list: each costs the API server as much as one for a new watch.
const COMPARE_EVERY: Duration = Duration::from_mins(30);
/// When it is, once more, after a difference.
const COMPARE_AGAIN: Duration = Duration::from_secs(15);
/// The longest that a page of such a list may take.
const COMPARE_TIME: Duration = Duration::from_mins(1);
/// Objects of a list that are in memory at once, as the API server wrote them.
const PAGE: u32 = 200;
/// The same for certificate requests: a megabyte and a half each, if somebody likes.
const REQUESTS_PAGE: u32 = 20;
/// A watch that expires sooner after its list did not expire of old age.
const LASTING: Duration = Duration::from_mins(1);
/// HTTP 410, see
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#410-gone-responses>.
const EXPIRED: u16 = 410;
/// Before a list is asked for because a watch has expired.
const LIST_PAUSE: Duration = Duration::from_millis(200);
/// An API server that takes longer for one object is away.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which objects of a kind.
#[derive(Clone, Debug)]
pub(super) enum Scope {
    /// Every one.
    All,
    /// The one of this name.
    Named(String),
    /// Those with this label, `key=value`.
    Labelled(String),
    /// Certificate requests for this signer.
    OfSigner(&'static str),
}

/// Who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watcher {
    /// One of a few.
    Server,
    /// One of thousands: lists come from the API server's memory, which may be a moment old.
    Agent,
}

/// What is heard of objects of one kind.
pub(super) enum WatchEvent<K> {
    /// Something happened to them.
    Event(Event<K>),
    /// Nothing can be heard; the newest cause.
    Lost(String),
    /// The API server answers again.
    Back,
}

struct Watch<K> {
    api: Api<K>,
    /// Names what is watched.
    all: ListParams,
    config: watcher::Config,
    events: BoxStream<'static, Result<Event<K>, watcher::Error>>,
    delivered: DeliveredVersions,
    compare_every: Duration,
    compare_at: Instant,
    /// A list that is on its way; `None` in the end if it does not come.
    listing: Option<BoxFuture<'static, Option<Vec<Version>>>>,
    backoff: Backoff,
    expiries: Expiries,
    state: WatchState,
}

/// Expired watches, each of which costs a list of everything.
#[derive(Debug, Default)]
struct Expiries {
    /// When the newest list was complete.
    listed: Option<Instant>,
    again: bool,
}

enum WatchState {
    /// As far as anybody knows.
    Working { since: Instant },
    /// To be tried again after this time.
    Broken { wait: Duration },
}

/// Watches for ever.
pub(super) fn follow<K>(
    api: Api<K>,
    which: &Scope,
    watcher_is: Watcher,
) -> BoxStream<'static, WatchEvent<K>>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    let mut config = watcher_is.config();
    let mut all = ListParams::default().limit(PAGE);
    match which {
        Scope::All => {}
        Scope::Named(name) => {
            let field = format!("metadata.name={name}");
            config = config.fields(&field);
            all = all.fields(&field);
        }
        Scope::Labelled(label) => {
            config = config.labels(label);
            all = all.labels(label);
        }
        Scope::OfSigner(signer) => {
            let field = format!("spec.signerName={signer}");
            config = config.fields(&field).page_size(REQUESTS_PAGE);
            all = all.fields(&field).limit(REQUESTS_PAGE);
        }
    }
    let compare_every = jittered(COMPARE_EVERY);
    let watch = Watch {
        events: watcher(api.clone(), config.clone()).boxed(),
        api,
        all,
        config,
        delivered: DeliveredVersions::default(),
        compare_every,
        compare_at: Instant::now() + compare_every,
        listing: None,
        backoff: Backoff::default(),
        expiries: Expiries::default(),
        state: WatchState::working(),
    };
    stream::unfold(watch, |mut watch| async {
        let watch_event = watch.next().await;
        Some((watch_event, watch))
    })
    .boxed()
}

/// Tells the log how one watch stands: once when it is lost, once when it is back.
#[derive(Debug)]
pub(super) struct WatchLogger {
    what: &'static str,
    lost: bool,
}

impl WatchLogger {
    pub(super) fn of(what: &'static str) -> Self {
        Self { what, lost: false }
    }

    /// The event, if it is one.
    pub(super) fn tell<K>(&mut self, watch_event: WatchEvent<K>) -> Option<Event<K>> {
        let what = self.what;
        match watch_event {
            WatchEvent::Event(event) => return Some(event),
            WatchEvent::Back => {
                self.lost = false;
                tracing::info!(what, "following the cluster again");
            }
            WatchEvent::Lost(error) if self.lost => {
                tracing::debug!(what, error, "still cannot follow the cluster");
            }
            WatchEvent::Lost(error) => {
                self.lost = true;
                tracing::warn!(
                    what,
                    error,
                    "cannot follow the cluster: what is known stays in force, trying again every \
                     few seconds",
                );
            }
        }
        None
    }
}

impl Watcher {
    fn config(self) -> watcher::Config {
        let config = watcher::Config::default().page_size(PAGE);
        match self {
            Self::Server => config.timeout(WATCH_SECONDS),
            Self::Agent => config.timeout(SELDOM_WATCH_SECONDS).any_semantic(),
        }
    }
}

impl<K> Watch<K>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    async fn next(&mut self) -> WatchEvent<K> {
        match self.state {
            WatchState::Working { since } => self.apply(since).await,
            WatchState::Broken { wait } => {
                sleep(wait).await;
                self.probe().await
            }
        }
    }

    async fn apply(&mut self, since: Instant) -> WatchEvent<K> {
        loop {
            let next = tokio::select! {
                next = self.events.next() => next,
                Some(listed) = OptionFuture::from(self.listing.as_mut()) => {
                    self.compare(listed);
                    continue;
                }
                () = sleep_until(self.compare_at), if self.listing.is_none() => {
                    self.listing = Some(Box::pin(versions(self.api.clone(), self.all.clone())));
                    continue;
                }
            };
            match next {
                Some(Ok(event)) => {
                    self.delivered.apply(&event);
                    if matches!(event, Event::InitDone) {
                        self.expiries.listed(Instant::now());
                    }
                    return WatchEvent::Event(event);
                }
                Some(Err(error)) if is_expired(&error) => {
                    if self.expiries.is_trouble(Instant::now()) {
                        return self.lost(describe(&error), Duration::ZERO);
                    }
                    sleep(LIST_PAUSE).await;
                }
                Some(Err(error)) => return self.lost(describe(&error), since.elapsed()),
                // The watcher has no end.
                None => std::future::pending().await,
            }
        }
    }

    /// Begins the watch anew if it does not tell what a list has. A list that fails says nothing: the watch will.
    fn compare(&mut self, listed: Option<Vec<Version>>) {
        self.listing = None;
        let comparison = listed.map(|listed| self.delivered.compare(listed));
        let again = match comparison {
            Some(Comparison::Differs) => COMPARE_AGAIN,
            Some(Comparison::Same) | None => self.compare_every,
            Some(Comparison::Stale) => {
                let kind = K::kind(&());
                tracing::warn!(%kind, "a watch on the API server does not tell what a list has: beginning it anew");
                // Not from a memory that may be as old as what was told.
                self.config.list_semantic = watcher::ListSemantic::MostRecent;
                self.events = watcher(self.api.clone(), self.config.clone()).boxed();
                self.compare_every
            }
        };
        self.compare_at = Instant::now() + again;
    }

    async fn probe(&mut self) -> WatchEvent<K> {
        // The smallest part of what is watched needs no other permission.
        let part = self.all.clone().limit(1);
        let error = match timeout(PATIENCE, self.api.list(&part)).await {
            Ok(Ok(_)) => {
                self.state = WatchState::working();
                // What was missed is told first.
                self.compare_at = Instant::now() + self.compare_every;
                return WatchEvent::Back;
            }
            Ok(Err(error)) => describe(&error),
            Err(_) => format!("no answer within {PATIENCE:?}"),
        };
        self.lost(error, Duration::ZERO)
    }

    fn lost(&mut self, error: String, worked: Duration) -> WatchEvent<K> {
        let wait = self.backoff.after(worked);
        self.listing = None;
        self.state = WatchState::Broken { wait };
        WatchEvent::Lost(error)
    }
}

/// What there is by now. Of a page no more is kept than its versions, whatever its objects carry.
async fn versions<K>(api: Api<K>, mut page: ListParams) -> Option<Vec<Version>>
where
    K: kube::Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let mut all = Vec::new();
    loop {
        let listed = match timeout(COMPARE_TIME, api.list_metadata(&page)).await {
            Ok(Ok(listed)) => listed,
            Ok(Err(error)) => {
                tracing::debug!(error = describe(&error), "no list to compare a watch with");
                return None;
            }
            Err(_elapsed) => {
                tracing::debug!("no list to compare a watch with in time");
                return None;
            }
        };
        all.extend(listed.items.iter().map(version));
        match listed.metadata.continue_.filter(|more| !more.is_empty()) {
            Some(more) => page.continue_token = Some(more),
            None => return Some(all),
        }
    }
}

/// Whether changes have been missed for too long to be told one by one, as after a restart of the
/// API server. The watcher lists anew, which is no trouble.
fn is_expired(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchError(status) if status.code == EXPIRED)
}

impl Expiries {
    fn listed(&mut self, now: Instant) {
        self.listed = Some(now);
    }

    /// A watch has expired: whether that has become the rule, so that listing anew is of no use. One
    /// right after a list is not yet, for that may have taken long.
    fn is_trouble(&mut self, now: Instant) -> bool {
        let listed = self.listed;
        let early = listed.is_some_and(|listed| now.saturating_duration_since(listed) < LASTING);
        std::mem::replace(&mut self.again, early) && early
    }
}

impl WatchState {
    fn working() -> Self {
        let since = Instant::now();
        Self::Working { since }
    }
}

#[cfg(test)]
mod tests;
