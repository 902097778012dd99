use std::task::{Context, Poll};

use futures_util::future::{Ready, ready};
use http::{Request, Response};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Client,
    client::Body,
    core::{Status, response::StatusSummary},
};
use tower_service::Service;

use super::*;
use crate::kubernetes::testing::absent_api_server;

/// An API server with one Node, of which it tells only who asks.
struct OneNode;

impl Service<Request<Body>> for OneNode {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let list = serde_json::json!({
            "apiVersion": "v1", "kind": "NodeList", "metadata": { "resourceVersion": "9" },
            "items": [{
                "apiVersion": "v1", "kind": "Node",
                "metadata": { "name": "edge-1", "uid": "u", "resourceVersion": "8" },
            }],
        });
        ready(Ok(Response::new(Body::from(list.to_string().into_bytes()))))
    }
}

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
        all: ListParams::default(),
        config: watcher::Config::default(),
        delivered: DeliveredVersions::default(),
        compare_every: COMPARE_EVERY,
        compare_at: Instant::now() + COMPARE_EVERY,
        listing: None,
        events: events.boxed(),
        backoff: Backoff::default(),
        expiries: Expiries::default(),
        state: WatchState::working(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_always_expires_is_trouble_and_not_listed_again_and_again() {
    let round = || stream::iter([Ok(Event::Init), Ok(Event::InitDone), expired()]);
    let mut watch = watch(round().chain(round()));
    for _ in 0..2 {
        assert!(matches!(watch.next().await, WatchEvent::Event(Event::Init)));
        assert!(matches!(
            watch.next().await,
            WatchEvent::Event(Event::InitDone)
        ));
    }
    let WatchEvent::Lost(error) = watch.next().await else {
        panic!("it goes on listing");
    };
    assert!(error.contains("too old"), "{error}");
    assert!(matches!(watch.state, WatchState::Broken { wait } if !wait.is_zero()));
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

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_silent_about_a_change_is_begun_anew() {
    let silent = stream::iter([Ok(Event::Init), Ok(Event::InitDone)]).chain(stream::pending());
    let mut watch = Watch {
        api: Api::all(Client::new(OneNode, "default")),
        ..watch(silent)
    };
    let start = Instant::now();
    let mut heard = Vec::new();
    while start.elapsed() < COMPARE_EVERY {
        heard.push(watch.next().await);
    }
    assert!(
        matches!(
            &heard[..],
            [
                WatchEvent::Event(Event::Init),
                WatchEvent::Event(Event::InitDone),
                WatchEvent::Event(Event::Init)
            ]
        ),
        "{} news",
        heard.len()
    );
    assert!(start.elapsed() < COMPARE_EVERY + 2 * COMPARE_AGAIN);
    let WatchEvent::Event(Event::InitApply(node)) = watch.next().await else {
        panic!("the Node is not listed");
    };
    assert_eq!(node.metadata.name.as_deref(), Some("edge-1"));
}
