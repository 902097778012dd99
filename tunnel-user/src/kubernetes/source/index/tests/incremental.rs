//! A view is made of what has changed since the last one. That it is the same as one made from nothing is shown by many
//! random clusters, each followed by two indexes, of which one forgets before every view what it had found.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::*;

const CLUSTERS: u64 = 60;
const CHANGES: usize = 120;

const NODES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "tunnel-server"];
/// Few, so that nodes claim the same; some in ranges of pods, some the cluster's own.
const ADDRESSES: [&str; 8] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.3",
    "10.244.1.1",
    "10.244.2.1",
    "10.96.0.10",
    "fd00::1",
    "192.0.2.9",
];
const RANGES: [&str; 4] = [
    "10.244.1.0/24",
    "10.244.2.0/24",
    "10.244.0.0/16",
    "10.0.0.2/32",
];

/// The same cluster, followed by both.
struct Both {
    random: StdRng,
    now: OffsetDateTime,
    incremental: Index,
    from_nothing: Index,
}

impl Both {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut rules = rules();
        if random.random() {
            rules.node_networks = ["10.0.0.0/8", "fd00::/16"]
                .map(|range| range.parse::<NodeNetwork>().unwrap())
                .into_iter()
                .collect();
        }
        Self {
            random,
            now: NOW,
            incremental: Index::new(rules.clone(), None),
            from_nothing: Index::new(rules, None),
        }
    }

    fn change(&mut self) {
        let random = &mut self.random;
        let name = *NODES.choose(random).unwrap();
        match random.random_range(0..12) {
            0 => self.hear([Event::Delete(edge(name, &[]))]),
            1 => {
                let count = random.random_range(0..3);
                let services: Vec<_> = ADDRESSES.sample(random, count).copied().collect();
                let cluster = ClusterAddresses::of(&["10.0.0.3"], &services);
                self.incremental.apply_cluster(&cluster);
                self.from_nothing.apply_cluster(&cluster);
            }
            2 => self.now += Duration::from_hours(random.random_range(1..30)),
            3 => {
                let count = random.random_range(0..5);
                let names: Vec<_> = NODES.sample(random, count).collect();
                let nodes: Vec<_> = names.iter().map(|name| any_node(random, name)).collect();
                self.hear(listed(nodes));
            }
            _ => {
                let node = any_node(random, name);
                self.hear([Event::Apply(node)]);
            }
        }
    }

    fn hear(&mut self, events: impl IntoIterator<Item = Event<NodeObject>>) {
        for event in events {
            self.incremental.apply_node(event.clone());
            self.from_nothing.apply_node(event);
        }
    }

    fn compare(&mut self, what: &str) {
        let has_session = |node: &NodeName, _| ["a", "c"].contains(&node.as_str());
        self.from_nothing.forget_what_follows();
        let one = self.incremental.view(&has_session, self.now);
        let other = self.from_nothing.view(&has_session, self.now);
        assert_eq!(one.snapshot, other.snapshot, "{what}");
        assert_eq!(one.problems, other.problems, "{what}");
        assert_eq!(one.clients, other.clients, "{what}");
        assert_eq!(one.next_change, other.next_change, "{what}");
        let saved = [&self.incremental, &self.from_nothing].map(|index| index.to_save(NOW));
        assert_eq!(saved[0], saved[1], "{what}");
        let listings = [&self.incremental, &self.from_nothing].map(Index::listing);
        assert_eq!(listings[0], listings[1], "{what}");
    }
}

fn any_node(random: &mut StdRng, name: &str) -> NodeObject {
    let labels: &[_] = if random.random_bool(0.7) {
        &[EDGE]
    } else {
        &[]
    };
    let count = random.random_range(0..4);
    let addresses: Vec<_> = ADDRESSES
        .sample(random, count)
        .map(|address| (random_kind(count, address), *address))
        .collect();
    let port = *[10250, 10350, 12000].choose(random).unwrap();
    let object = with_kubelet(name, labels, &addresses, port);
    if random.random_bool(0.3) {
        with_pods(object, RANGES.choose(random).unwrap())
    } else {
        object
    }
}

/// Mostly what clients dial.
fn random_kind(count: usize, address: &str) -> &'static str {
    if (count + address.len()).is_multiple_of(4) {
        "ExternalIP"
    } else {
        "InternalIP"
    }
}

#[test]
fn a_view_of_what_changed_is_the_view_of_everything() {
    for seed in 0..CLUSTERS {
        let mut both = Both::new(seed);
        for change in 0..CHANGES {
            both.change();
            if both.random.random_bool(0.6) {
                both.compare(&format!("cluster {seed} after {change} changes"));
            }
        }
    }
}

#[test]
fn a_range_of_pods_that_a_node_turns_out_to_be_in_shuts_no_other_node_out() {
    let mut rules = rules();
    rules.node_networks = ["10.0.0.0/8".parse().unwrap()].into_iter().collect();
    let mut index = Index::new(rules, None);
    let pods = with_pods(cloud("c1", &["10.1.0.1"]), "10.244.0.0/16");
    hear_nodes(&mut index, listed([pods]));
    view(&mut index);
    index.apply_node(Event::Apply(edge("e1", &["10.244.1.1"])));
    assert_eq!(
        owned(&mut index),
        [],
        "it is in a range of pods that counts"
    );
    index.apply_node(Event::Apply(cloud("c2", &["10.244.2.1"])));
    view(&mut index);
    // No Node has changed since, but what was found then has.
    let expected = ("10.244.1.1".to_owned(), "e1".to_owned());
    assert_eq!(owned(&mut index), [expected]);
}

#[test]
fn a_kubelet_cannot_prepare_an_address_of_pods_by_calling_it_external() {
    let mut index = with_nodes([with_pods(cloud("c1", &["10.1.0.1"]), "10.244.1.0/24")]);
    view(&mut index);
    let external = node("e1", &[EDGE], &[("ExternalIP", "10.244.1.9")]);
    index.apply_node(Event::Apply(external));
    view(&mut index);
    index.apply_node(Event::Apply(edge("e1", &["10.244.1.9"])));
    assert_eq!(owned(&mut index), []);
    let of_node = |problem: &String| problem.contains("10.244.1.9 is in a range of pods");
    assert!(problems(&mut index).iter().any(of_node));
}

#[test]
fn nor_by_being_a_node_of_the_cloud_for_a_while() {
    let mut index = with_nodes([with_pods(cloud("c1", &["10.1.0.1"]), "10.244.1.0/24")]);
    for object in [
        edge("e1", &["10.0.0.1"]),
        cloud("e1", &["10.244.1.9"]),
        edge("e1", &["10.244.1.9"]),
    ] {
        index.apply_node(Event::Apply(object));
        view(&mut index);
    }
    assert_eq!(owned(&mut index), []);
}

#[test]
fn a_change_of_one_node_leaves_what_is_not_concerned_shared() {
    let nodes = (0..1000).map(|n| {
        edge(
            &format!("e{n}"),
            &[&format!("10.0.{}.{}", n / 250, n % 250)],
        )
    });
    let mut index = with_nodes(nodes);
    let before = view(&mut index).snapshot;
    index.apply_node(Event::Apply(edge("e7", &["10.9.0.1"])));
    let after = view(&mut index).snapshot;
    let changed: Vec<_> = after
        .changed_nodes(&before)
        .map(|change| change.name().to_string())
        .collect();
    assert_eq!(changed, ["e7"]);
    let untouched = "e8".parse().unwrap();
    assert!(std::ptr::eq(
        before.node(&untouched).unwrap(),
        after.node(&untouched).unwrap()
    ));
    let judged = index.judged.look(
        &index.nodes.facts.clone(),
        &index.cluster,
        &index.rules,
        &index.claims,
    );
    assert!(
        judged.nodes.is_empty() && judged.addresses.is_empty(),
        "nothing is left to be judged"
    );
}
