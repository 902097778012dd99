use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::kubernetes::testing::absent_api_server;

fn service(uid: &str, ips: &[&str]) -> Service {
    let spec = json!({ "clusterIP": ips[0], "clusterIPs": ips });
    serde_json::from_value(json!({ "metadata": { "uid": uid }, "spec": spec })).unwrap()
}

fn slice(uid: &str, addresses: &[&str]) -> EndpointSlice {
    let endpoints = json!([{ "addresses": addresses }]);
    serde_json::from_value(json!({
        "metadata": { "uid": uid },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [],
    }))
    .unwrap()
}

fn listed<K: Resource>(watched: &mut Watched<K>, objects: impl IntoIterator<Item = K>) {
    watched.apply(WatchEvent::Event(Event::Init));
    for object in objects {
        watched.apply(WatchEvent::Event(Event::InitApply(object)));
    }
    watched.apply(WatchEvent::Event(Event::InitDone));
}

fn set(list: &[&str]) -> BTreeSet<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

fn follower(saved: ClusterAddresses) -> (Follower, latest::Receiver<Known>) {
    let host = latest::Sender::new(Some(Arc::new(set(&["192.0.2.9"])))).subscribe();
    Follower::new(absent_api_server(), host, saved)
}

#[tokio::test]
async fn services_and_api_servers_come_change_and_go() {
    let (mut follower, known) = follower(ClusterAddresses::default());
    let headless = service("h", &["None"]);
    let dual = service("d", &["10.96.0.10", "fd00:96::10"]);
    listed(
        &mut follower.services,
        [headless, dual, service("k", &["10.96.0.1"])],
    );
    follower.publish();
    assert!(!known.borrow().asked, "the endpoints are still asked for");
    listed(
        &mut follower.endpoints,
        [slice("s", &["192.0.2.1", "192.0.2.2"])],
    );
    follower.publish();
    let addresses = known.borrow().addresses.clone();
    assert!(known.borrow().asked);
    assert_eq!(
        addresses.services,
        set(&["10.96.0.1", "10.96.0.10", "fd00:96::10"])
    );
    assert_eq!(addresses.endpoints, set(&["192.0.2.1", "192.0.2.2"]));
    assert!(addresses.is_api_server("192.0.2.9".parse().unwrap()));

    let deleted = service("d", &["10.96.0.10"]);
    follower
        .services
        .apply(WatchEvent::Event(Event::Delete(deleted)));
    let moved = slice("s", &["192.0.2.3"]);
    follower
        .endpoints
        .apply(WatchEvent::Event(Event::Apply(moved)));
    follower.publish();
    assert_eq!(known.borrow().addresses.services, set(&["10.96.0.1"]));
    assert_eq!(known.borrow().addresses.endpoints, set(&["192.0.2.3"]));
}

#[tokio::test]
async fn what_cannot_be_followed_stays_as_it_was_known_last_even_from_disk() {
    let saved = ClusterAddresses::of(&["192.0.2.1"], &["10.96.0.10"]);
    let (mut follower, known) = follower(saved.clone());
    let lost = || "forbidden".to_owned();
    follower.services.apply(WatchEvent::Lost(lost()));
    follower.endpoints.apply(WatchEvent::Lost(lost()));
    follower.publish();
    let now = known.borrow().clone();
    assert!(now.asked, "nobody waits for what is forbidden");
    assert!(now.addresses.is_service("10.96.0.10".parse().unwrap()));
    assert!(now.addresses.is_api_server("192.0.2.1".parse().unwrap()));
    let trouble = now.trouble.unwrap();
    assert!(trouble.contains("Services: forbidden"), "{trouble}");

    // An API server that has just started has not written where it is.
    listed(&mut follower.endpoints, []);
    listed(&mut follower.services, [service("n", &["10.96.0.11"])]);
    follower.publish();
    let now = known.borrow().clone();
    assert_eq!(now.addresses.endpoints, set(&["192.0.2.1"]));
    assert_eq!(
        (now.addresses.services, now.trouble),
        (set(&["10.96.0.11"]), None)
    );
}
