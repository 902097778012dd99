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

use crate::{backoff::Backoff, kubernetes::api_error::describe};

/// The API server ends a watch after this many seconds, and it is made anew from the same point. A
/// connection that died in silence is found soon after.
const WATCH_SECONDS: u32 = 30;
/// The same for agents: there are thousands of them, and little of theirs changes.
const SELDOM_WATCH_SECONDS: u32 = 290;
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
pub(super) enum Which {
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
    expiries: Expiries,
    state: State,
}

/// Expired watches, each of which costs a list of everything.
#[derive(Debug, Default)]
struct Expiries {
    /// When the newest list was complete.
    listed: Option<Instant>,
    again: bool,
}

enum State {
    /// As far as anybody knows.
    Working { since: Instant },
    /// To be tried again after this time.
    Broken { wait: Duration },
}

/// Watches for ever.
pub(super) fn follow<K>(
    api: Api<K>,
    which: &Which,
    watcher_is: Watcher,
) -> BoxStream<'static, News<K>>
where
    K: kube::Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let mut config = watcher_is.config();
    let mut probe = ListParams::default().limit(1);
    match which {
        Which::All => {}
        Which::Named(name) => {
            let field = format!("metadata.name={name}");
            config = config.fields(&field);
            probe = probe.fields(&field);
        }
        Which::Labelled(label) => {
            config = config.labels(label);
            probe = probe.labels(label);
        }
        Which::OfSigner(signer) => {
            let field = format!("spec.signerName={signer}");
            config = config.fields(&field).page_size(REQUESTS_PAGE);
            probe = probe.fields(&field);
        }
    }
    let watch = Watch {
        events: watcher(api.clone(), config).boxed(),
        api,
        probe,
        backoff: Backoff::default(),
        expiries: Expiries::default(),
        state: State::working(),
    };
    stream::unfold(watch, |mut watch| async {
        let news = watch.next().await;
        Some((news, watch))
    })
    .boxed()
}

/// Tells the log how one watch stands: once when it is lost, once when it is back.
#[derive(Debug)]
pub(super) struct Trouble {
    what: &'static str,
    lost: bool,
}

impl Trouble {
    pub(super) fn of(what: &'static str) -> Self {
        Self { what, lost: false }
    }

    /// The event, if it is one.
    pub(super) fn tell<K>(&mut self, news: News<K>) -> Option<Event<K>> {
        let what = self.what;
        match news {
            News::Event(event) => return Some(event),
            News::Back => {
                self.lost = false;
                tracing::info!(what, "following the cluster again");
            }
            News::Lost(error) if self.lost => {
                tracing::debug!(what, error, "still cannot follow the cluster");
            }
            News::Lost(error) => {
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
        loop {
            match self.events.next().await {
                Some(Ok(event)) => {
                    if matches!(event, Event::InitDone) {
                        self.expiries.listed(Instant::now());
                    }
                    return News::Event(event);
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

    async fn probe(&mut self) -> News<K> {
        let error = match timeout(PATIENCE, self.api.list(&self.probe)).await {
            Ok(Ok(_)) => {
                self.state = State::working();
                return News::Back;
            }
            Ok(Err(error)) => describe(&error),
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

impl State {
    fn working() -> Self {
        let since = Instant::now();
        Self::Working { since }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use kube::core::{Status, response::StatusSummary};

    use super::*;
    use crate::kubernetes::testing::absent_api_server;

    fn expired() -> Result<Event<Node>, watcher::Error> {
        Err(watcher::Error::WatchError(Box::new(Status {
            code: EXPIRED,
            status: Some(StatusSummary::Failure),
            message: "too old resource version".to_owned(),
            ..Status::default()
        })))
    }

    fn watch(
        events: impl futures_util::Stream<Item = Result<Event<Node>, watcher::Error>> + Send + 'static,
    ) -> Watch<Node> {
        Watch {
            api: Api::all(absent_api_server()),
            probe: ListParams::default(),
            events: events.boxed(),
            backoff: Backoff::default(),
            expiries: Expiries::default(),
            state: State::working(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_always_expires_is_trouble_and_not_listed_again_and_again() {
        let round = || stream::iter([Ok(Event::Init), Ok(Event::InitDone), expired()]);
        let mut watch = watch(round().chain(round()));
        for _ in 0..2 {
            assert!(matches!(watch.next().await, News::Event(Event::Init)));
            assert!(matches!(watch.next().await, News::Event(Event::InitDone)));
        }
        let News::Lost(error) = watch.next().await else {
            panic!("it goes on listing");
        };
        assert!(error.contains("too old"), "{error}");
        assert!(matches!(watch.state, State::Broken { wait } if !wait.is_zero()));
    }

    #[test]
    fn a_watch_that_expires_once_in_a_while_is_no_trouble() {
        let mut expiries = Expiries::default();
        let mut now = Instant::now();
        for lasted in [LASTING, LASTING / 2, LASTING, LASTING / 2] {
            expiries.listed(now);
            now += lasted;
            assert!(!expiries.is_trouble(now));
        }
        expiries.listed(now);
        assert!(expiries.is_trouble(now), "the second in a row");
    }
}
