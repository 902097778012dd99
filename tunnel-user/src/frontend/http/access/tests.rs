//! What is asked of the cluster, how often, and what its silence means.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{BoxFuture, pending};
use tokio::time::{advance, timeout};

use super::*;
use crate::{
    frontend::http::visit::Visit,
    model::{PeerAddr, Subresource, Verb},
    strangers::ClientLimiter,
};

/// A cluster in which `good` is alice's token, who may read figures of `edge-1`.
#[derive(Default)]
struct Cluster {
    asked: AtomicUsize,
    is_silent: bool,
    fails: bool,
}

impl Cluster {
    fn answer<'a, T: Send + 'a>(&self, answer: T) -> BoxFuture<'a, Result<T, ReviewError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match (self.is_silent, self.fails) {
            (true, _) => Box::pin(pending()),
            (_, true) => Box::pin(async { Err(ReviewError("it is down".to_owned())) }),
            _ => Box::pin(async { Ok(answer) }),
        }
    }
}

impl Reviews for Cluster {
    fn user_of<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Option<User>, ReviewError>> {
        let alice = User::authenticated("alice".to_owned(), []);
        self.answer((token == "good").then_some(alice))
    }

    fn may<'a>(
        &'a self,
        user: &'a User,
        access: &'a NodeAccess,
    ) -> BoxFuture<'a, Result<bool, ReviewError>> {
        let granted = NodeAccess {
            verb: Verb::Get,
            subresource: Subresource::Metrics,
            node: "edge-1".parse().ok(),
        };
        self.answer(user.name == "alice" && *access == granted)
    }

    fn node_of<'a>(
        &'a self,
        pod: &'a PodName,
    ) -> BoxFuture<'a, Result<Option<NodeName>, ReviewError>> {
        let node = (pod.name() == "there").then(|| "edge-1".parse().unwrap());
        self.answer(node)
    }
}

fn visit(last: u8) -> Visit {
    let ip = [10, 0, 0, last].into();
    let client = (PeerAddr((ip, 1).into()), Client::Address(ip));
    Visit::new(client, Proof::None, ClientLimiter::new(64, 64))
}

fn access(cluster: Cluster) -> (Access, Arc<Cluster>) {
    let cluster = Arc::new(cluster);
    (Access::new(Arc::clone(&cluster) as _), cluster)
}

fn token(token: &str) -> HeaderMap {
    let value = format!("Bearer {token}").parse().unwrap();
    [(http::header::AUTHORIZATION, value)].into_iter().collect()
}

fn wanted(path: &str) -> Wanted {
    let wanted = Wanted::of_kubelet(&http::Method::GET, path).unwrap();
    wanted.of_node("edge-1".parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_good_answer_counts_for_ten_seconds_and_a_bad_one_for_two() {
    let (access, cluster) = access(Cluster::default());
    let visit = visit(1);
    let asked = || cluster.asked.load(Ordering::Relaxed);
    let ask = async || {
        let review = access.review(&visit);
        let alice = review.user(&token("good")).await.unwrap();
        assert!(review.permit(&alice, &wanted("/metrics")).await.is_ok());
        assert!(review.user(&token("bad")).await.is_err());
        assert!(review.permit(&alice, &wanted("/stats")).await.is_err());
    };
    for (passes, count) in [(0, 4), (1900, 4), (200, 6), (7800, 8), (200, 10)] {
        advance(Duration::from_millis(passes)).await;
        ask().await;
        assert_eq!(asked(), count, "after {passes} ms more");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_says_nothing_or_fails_lets_nobody_in() {
    let silent = Cluster {
        is_silent: true,
        ..Cluster::default()
    };
    let failing = Cluster {
        fails: true,
        ..Cluster::default()
    };
    for (cluster, cause) in [(silent, "no answer within 5s"), (failing, "it is down")] {
        let (access, cluster) = access(cluster);
        let visit = visit(1);
        for _ in 0..2 {
            let (review, good) = (access.review(&visit), token("good"));
            let within = timeout(REVIEW_TIME + Duration::from_millis(1), review.user(&good));
            let refused = within.await.unwrap().unwrap_err();
            assert_eq!(refused, Refusal::NotReviewed(cause.to_owned()));
            let alice = Arc::new(User::authenticated("alice".to_owned(), []));
            let refused = access
                .review(&visit)
                .permit(&alice, &wanted("/metrics"))
                .await;
            assert_eq!(refused, Err(Refusal::NotReviewed(cause.to_owned())));
        }
        assert_eq!(
            cluster.asked.load(Ordering::Relaxed),
            4,
            "it is asked again each time"
        );
    }
}

#[tokio::test]
async fn one_address_has_half_of_the_questions_under_way_and_gets_its_places_back() {
    let (access, _) = access(Cluster {
        is_silent: true,
        ..Cluster::default()
    });
    let (one, other) = (visit(1), visit(2));
    let ask = |visit: &Visit| Asking::begin(&access.of_tokens, visit);
    let places: Vec<_> = (0..MOST_QUESTIONS / 2)
        .map(|_| ask(&one).unwrap())
        .collect();
    assert!(matches!(ask(&one).err(), Some(Refusal::TooMany(_))));
    let others: Vec<_> = std::iter::from_fn(|| ask(&other).ok()).collect();
    assert!(!others.is_empty());
    let full = ask(&visit(3)).err();
    assert!(matches!(full, Some(Refusal::NotReviewed(_))), "{full:?}");
    // What clients without a credential have asked takes nothing from those who have one.
    assert!(Asking::begin(&access.of_users, &visit(3)).is_ok());
    drop(places);
    assert!(ask(&one).is_ok());
}

#[tokio::test]
async fn a_pod_is_told_from_none_only_to_those_who_may_look() {
    let (access, _) = access(Cluster::default());
    let visit = visit(1);
    let review = access.review(&visit);
    let alice = Arc::new(User::authenticated("alice".to_owned(), []));
    let pod = |name: &str| PodName::new("ns", name).unwrap();
    let asked = |path| Wanted::of_kubelet(&http::Method::GET, path).unwrap();
    let figures = asked("/metrics");
    let found = review.node_of(&alice, &pod("there"), &figures).await;
    assert_eq!(found.unwrap().as_str(), "edge-1");
    let look = asked("/containerLogs/ns/x/c");
    let absent = review.node_of(&alice, &pod("absent"), &look).await;
    assert!(
        matches!(absent, Err(Refusal::NotPermitted { .. })),
        "{absent:?}"
    );
    let there = review.node_of(&alice, &pod("there"), &look).await;
    assert_eq!(there, absent, "in the same words");
    // As one who may: figures of that node stand for a permission here.
    let absent = review
        .node_of(&alice, &pod("absent"), &wanted("/metrics"))
        .await;
    assert_eq!(absent, Err(Refusal::UnknownPod(pod("absent"))));
}

#[test]
fn a_token_is_kept_as_a_hash_that_means_nothing_elsewhere() {
    let [one, other] = [(); 2].map(|()| access(Cluster::default()).0);
    assert_eq!(one.hash("good"), one.hash("good"));
    assert_ne!(one.hash("good"), one.hash("bad"));
    assert_ne!(one.hash("good"), other.hash("good"));
}
