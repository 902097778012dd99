mod incremental;

use std::time::Instant;

use super::*;
use crate::{
    kubernetes::{
        certificates::kind::{SERVER_NODE_NAME, SERVER_SUBJECT},
        source::{
            NodePlace,
            testing::{
                EDGE, cloud, edge, listed, nobody, node, ports, rules, with_kubelet, with_pods,
            },
        },
    },
    model::{NodeNetwork, Scheme},
};

const NOW: OffsetDateTime = time::macros::datetime!(2026-01-01 12:00 UTC);

fn index() -> Index {
    Index::new(rules(), None)
}

fn view(index: &mut Index) -> View {
    index.view(&nobody, NOW)
}

fn owned(index: &mut Index) -> Vec<(String, String)> {
    let snapshot = view(index).snapshot;
    let owned = snapshot.owned_addresses();
    let mut owned: Vec<_> = owned
        .map(|(ip, node)| (ip.to_string(), node.name.to_string()))
        .collect();
    owned.sort();
    owned
}

fn with_nodes(objects: impl IntoIterator<Item = NodeObject>) -> Index {
    let mut index = index();
    hear_nodes(&mut index, listed(objects));
    index
}

fn hear_nodes(index: &mut Index, events: impl IntoIterator<Item = Event<NodeObject>>) -> bool {
    let mut changed = false;
    for event in events {
        changed = index.apply_node(event);
    }
    changed
}

fn apply_config(index: &mut Index, events: impl IntoIterator<Item = Event<ConfigMap>>) -> bool {
    let mut changed = false;
    for event in events {
        changed = index.apply_config(event);
    }
    changed
}

fn config(data: &[(&str, &str)]) -> ConfigMap {
    let mut config = ConfigMap::default();
    config.metadata.uid = Some("u-1".to_owned());
    let data = data.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    config.data = Some(data.collect());
    config
}

fn names(index: &mut Index) -> Vec<String> {
    let view = view(index);
    view.snapshot
        .nodes()
        .keys()
        .map(ToString::to_string)
        .collect()
}

fn problems(index: &mut Index) -> Vec<String> {
    view(index)
        .problems
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn extra_ports(index: &mut Index) -> PortSet {
    view(index).snapshot.ports() - &ports(&[10250, 10255])
}

#[test]
fn a_listing_has_every_node_with_where_it_is_reached_and_the_ports_that_are_known() {
    let internal = ("InternalIP", "10.1.0.1");
    let external = ("ExternalIP", "203.0.113.1");
    let mut index = with_nodes([
        edge("e1", &["10.0.0.1"]),
        edge("tunnel-server", &["10.0.0.2"]),
        node("c1", &[], &[external, internal]),
        node("c2", &[], &[external]),
        cloud("c3", &[]),
    ]);
    let direct = |addresses: &[&str]| {
        NodePlace::Direct(addresses.iter().map(|a| a.parse().unwrap()).collect())
    };
    let listing = index.listing();
    let places: Vec<_> = listing
        .nodes
        .iter()
        .map(|(name, place)| (name.as_str(), place.clone()))
        .collect();
    let expected = [
        ("c1", direct(&["10.1.0.1"])),
        ("c2", direct(&["203.0.113.1"])),
        ("c3", direct(&[])),
        ("e1", NodePlace::Tunnelled),
        ("tunnel-server", direct(&["10.0.0.2"])),
    ];
    assert_eq!(places, expected);
    assert_eq!(listing.ports, None, "nobody has told of the ports");

    let data = [
        ("https-proxy-ports", "9443"),
        ("localhost-proxy-ports", "10266"),
    ];
    index.apply_config(Event::Apply(config(&data)));
    let ports = index.listing().ports.unwrap();
    assert_eq!(
        ports,
        [(TunnelPort::new(9443).unwrap(), Scheme::Https)].into()
    );
}

#[test]
fn nodes_come_change_and_go_as_they_do_in_the_cluster() {
    let mut index = with_nodes([edge("e1", &["10.0.0.1"]), cloud("c1", &["10.1.0.1"])]);
    assert_eq!(names(&mut index), ["e1"]);
    assert!(index.apply_node(Event::Apply(edge("e2", &["10.0.0.2"]))));
    assert!(
        !index.apply_node(Event::Apply(edge("e2", &["10.0.0.2"]))),
        "nothing new"
    );
    assert_eq!(names(&mut index), ["e1", "e2"]);

    assert!(index.apply_node(Event::Apply(edge("e2", &["10.0.0.22"]))));
    let snapshot = view(&mut index).snapshot;
    assert!(snapshot.owner("10.0.0.2".parse().unwrap()).is_none());
    assert!(snapshot.owner("10.0.0.22".parse().unwrap()).is_some());

    assert!(
        index.apply_node(Event::Apply(cloud("e2", &["10.0.0.22"]))),
        "lost its label"
    );
    assert_eq!(names(&mut index), ["e1"]);
    assert!(index.apply_node(Event::Delete(edge("e1", &[]))));
    assert!(!index.apply_node(Event::Delete(edge("e1", &[]))));
    assert_eq!(names(&mut index), [""; 0]);
}

#[test]
fn clients_are_in_the_cloud_and_http_is_for_the_ports_that_are_said_to_speak_it() {
    let mut index = with_nodes([
        with_pods(cloud("worker", &["10.77.0.2"]), "10.244.1.0/24"),
        with_pods(edge("edge-1", &["10.78.0.11"]), "10.244.2.0/24"),
        cloud(SERVER_NODE_NAME, &["10.77.0.3"]),
    ]);
    let data = [("https-proxy-ports", "9443"), ("http-proxy-ports", "9100")];
    apply_config(&mut index, [Event::Apply(config(&data))]);
    let View {
        clients, snapshot, ..
    } = view(&mut index);
    let is_client = |address: &str| clients.contains(address.parse().unwrap());
    assert!(is_client("10.77.0.2") && is_client("10.244.1.7"));
    assert!(!is_client("10.78.0.11") && !is_client("10.244.2.7") && !is_client("10.77.0.3"));
    assert_eq!(snapshot.http_ports(), &ports(&[9100, 10255]));
}

#[test]
fn a_list_counts_once_it_is_whole() {
    let mut index = with_nodes([edge("e1", &["10.0.0.1"]), edge("e2", &["10.0.0.2"])]);
    assert!(index.heard_nodes());
    assert!(!index.apply_node(Event::Init));
    assert!(!index.apply_node(Event::InitApply(edge("e3", &["10.0.0.3"]))));
    assert_eq!(names(&mut index), ["e1", "e2"], "half a list is none");
    // It broke, and begins again.
    assert!(!index.apply_node(Event::Init));
    assert!(!index.apply_node(Event::InitApply(edge("e2", &["10.0.0.2"]))));
    assert!(index.apply_node(Event::InitDone));
    assert_eq!(names(&mut index), ["e2"]);
    let same = listed([edge("e2", &["10.0.0.2"])]);
    assert!(!hear_nodes(&mut index, same), "the same list is no change");
}

#[test]
fn an_address_of_two_nodes_that_are_heard_of_together_is_neithers_whatever_the_second_is() {
    let mut index = with_nodes([
        edge("e1", &["10.0.0.1", "10.0.0.9"]),
        edge("e2", &["10.0.0.1"]),
        edge("e3", &["10.1.0.1"]),
        cloud("c1", &["10.1.0.1"]),
    ]);
    let snapshot = view(&mut index).snapshot;
    let owned: Vec<String> = snapshot
        .owned_addresses()
        .map(|(ip, _)| ip.to_string())
        .collect();
    assert_eq!(owned, ["10.0.0.9"]);
    assert_eq!(snapshot.nodes().len(), 3, "all are reached by name");
    let problems = problems(&mut index);
    assert!(
        problems[0].contains("10.0.0.1 is the address of nodes e1 and e2"),
        "{problems:?}"
    );
    assert!(
        problems[1].contains("10.1.0.1 is the address of nodes c1 and e3"),
        "{problems:?}"
    );
    index.apply_node(Event::Delete(edge("e2", &[])));
    index.apply_node(Event::Delete(edge("c1", &[])));
    assert_eq!(view(&mut index).snapshot.owned_addresses().count(), 3);
    assert!(view(&mut index).problems.is_empty());
}

#[test]
fn a_node_that_claims_64_others_addresses_gets_none_and_takes_none() {
    let address = |n: usize| format!("10.0.0.{n}");
    let victims: Vec<_> = (1..=64)
        .map(|n| edge(&format!("e{n}"), &[&address(n)]))
        .collect();
    let mut index = with_nodes(victims);
    let before = owned(&mut index);
    let all: Vec<String> = (1..=64).map(address).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for thief in [edge("a", &all), cloud("b", &all)] {
        index.apply_node(Event::Apply(thief));
    }
    assert_eq!(owned(&mut index), before);
    let view = view(&mut index);
    assert_eq!(view.snapshot.conflicts().len(), 0);
    let claims: Vec<_> = view.problems.into_iter().collect();
    assert_eq!(claims.len(), 64);
    for claim in claims {
        let ClusterProblem::HeldAddress { nodes, .. } = &claim else {
            panic!("{claim}")
        };
        assert_eq!(
            nodes.iter().map(NodeName::as_str).collect::<Vec<_>>(),
            ["a", "b"]
        );
    }
    let mut after = Index::new(rules(), Some(index.to_save(NOW)));
    assert_eq!(owned(&mut after), before, "over a restart, too");
}

#[test]
fn an_address_that_becomes_the_clusters_own_is_taken_from_the_node_that_claimed_it_in_advance() {
    let mut index = with_nodes([edge("e1", &["10.96.0.20", "10.0.0.1", "192.0.2.6"])]);
    assert_eq!(owned(&mut index).len(), 3);
    assert!(index.apply_cluster(&ClusterAddresses::of(&["192.0.2.6"], &["10.96.0.20"])));
    assert!(!index.apply_cluster(&ClusterAddresses::of(&["192.0.2.6"], &["10.96.0.20"])));
    assert_eq!(
        owned(&mut index),
        [("10.0.0.1".to_owned(), "e1".to_owned())]
    );
    let mut after = Index::new(rules(), Some(index.to_save(NOW)));
    assert_eq!(owned(&mut after).len(), 1, "without an API server, too");
}

#[test]
fn pods_ranges_are_no_nodes_and_take_no_node_its_address() {
    let range = |object, range| Event::Apply(with_pods(object, range));
    let mut index = with_nodes([edge("e1", &["10.0.0.1"])]);
    index.apply_node(range(cloud("c1", &["10.1.0.1"]), "10.244.1.0/24"));
    view(&mut index);
    index.apply_node(Event::Apply(edge("thief", &["10.244.1.7"])));
    assert_eq!(
        owned(&mut index),
        [("10.0.0.1".to_owned(), "e1".to_owned())]
    );
    // A kubelet may say its pods' range itself, once.
    index.apply_node(range(edge("thief", &[]), "10.0.0.0/8"));
    assert_eq!(owned(&mut index).len(), 1);
    assert!(problems(&mut index).iter().any(|problem| {
        problem.starts_with("node thief: its podCIDR 10.0.0.0/8 has addresses in it")
    }));
    let mut after = Index::new(rules(), Some(index.to_save(NOW)));
    assert_eq!(owned(&mut after).len(), 1, "over a restart, too");

    let with_networks = Rules {
        node_networks: ["10.0.0.0/16".parse::<NodeNetwork>().unwrap()]
            .into_iter()
            .collect(),
        ..rules()
    };
    let mut index = Index::new(with_networks, Some(index.to_save(NOW)));
    view(&mut index);
    index.apply_node(Event::Apply(edge("e2", &["10.0.0.2"])));
    assert_eq!(
        owned(&mut index).len(),
        2,
        "the operator's word is the stronger"
    );
}

#[test]
fn what_was_saved_is_judged_by_the_rules_of_the_server_that_reads_it() {
    let kubelet = with_kubelet("e2", &[("zone", "b")], &[("InternalIP", "10.1.0.1")], 10350);
    let mut before = with_nodes([edge("e1", &["10.0.0.1"]), kubelet]);
    let saved = || Some(before.to_save(NOW));
    let with_zone = Rules {
        selectors: vec!["zone=b".parse().unwrap()],
        kubelet_ports: ports(&[10350]),
        ..rules()
    };
    let snapshot = view(&mut Index::new(with_zone, saved())).snapshot;
    let nodes: Vec<_> = snapshot.nodes().values().collect();
    assert_eq!(nodes.len(), 1);
    assert_eq!(
        (nodes[0].name.as_str(), &nodes[0].extra_ports),
        ("e2", &ports(&[10350]))
    );
    let elsewhere = Rules {
        node_networks: ["10.9.0.0/16".parse::<NodeNetwork>().unwrap()]
            .into_iter()
            .collect(),
        ..rules()
    };
    assert_eq!(owned(&mut Index::new(elsewhere, saved())), []);
    assert_eq!(owned(&mut before).len(), 1);
}

#[test]
fn a_node_named_like_the_servers_is_never_tunnelled() {
    let mut index = with_nodes([edge("tunnel-server", &["10.0.0.1"])]);
    assert_eq!(names(&mut index), [""; 0]);
    assert!(problems(&mut index)[0].contains("of this name is never tunnelled"));
    index.apply_node(Event::Apply(edge("e1", &["10.0.0.1"])));
    assert_eq!(owned(&mut index), [], "nobody else gets its address");
    let subject = format!("system:node:{SERVER_NODE_NAME}");
    assert_eq!(subject, SERVER_SUBJECT.common_name);
}

#[test]
fn an_external_address_of_another_node_is_not_taken_either() {
    let external = node("c1", &[], &[("ExternalIP", "192.0.2.1")]);
    let mut index = with_nodes([external]);
    view(&mut index);
    index.apply_node(Event::Apply(edge("e1", &["192.0.2.1"])));
    assert_eq!(view(&mut index).snapshot.owned_addresses().count(), 0);
    assert_eq!(view(&mut index).problems.len(), 1);
}

#[test]
fn a_node_with_a_name_that_is_none_is_a_finding_until_it_is_gone() {
    let mut index = with_nodes([edge("e1", &["10.0.0.1"]), edge("No Node", &["10.0.0.2"])]);
    assert_eq!(names(&mut index), ["e1"]);
    assert!(problems(&mut index)[0].contains("\"No Node\" is not a node name"));
    assert!(index.apply_node(Event::Delete(edge("No Node", &[]))));
    assert!(view(&mut index).problems.is_empty());
}

#[test]
fn ports_follow_the_config_map() {
    let mut index = index();
    assert!(!index.heard_config());
    assert_eq!(extra_ports(&mut index), ports(&[]));
    assert!(apply_config(
        &mut index,
        listed([config(&[("http-proxy-ports", "9100")])])
    ));
    assert_eq!(extra_ports(&mut index), ports(&[9100]));
    let data = [
        ("http-proxy-ports", "9100,x"),
        ("localhost-proxy-ports", "10266"),
    ];
    assert!(index.apply_config(Event::Apply(config(&data))));
    assert_eq!(extra_ports(&mut index), ports(&[9100, 10266]));
    assert_eq!(view(&mut index).snapshot.loopback_ports(), &ports(&[10266]));
    let problem = &problems(&mut index)[0];
    assert!(
        problem.starts_with("ConfigMap kube-system/ports: http-proxy-ports: \"x\" left out"),
        "{problem}"
    );
    assert_eq!(index.ports_config().uid.as_deref(), Some("u-1"));
}

#[test]
fn flags_and_the_kubelets_ports_are_tunnelled_whatever_the_config_map_says() {
    let with_flag = Rules {
        ports: ports(&[9999]),
        ..rules()
    };
    let mut index = Index::new(with_flag, None);
    apply_config(&mut index, listed([config(&[])]));
    assert_eq!(
        view(&mut index).snapshot.ports(),
        &ports(&[9999, 10250, 10255])
    );
}

#[test]
fn a_config_map_that_is_deleted_leaves_its_ports_and_a_finding() {
    let mut index = index();
    apply_config(
        &mut index,
        listed([config(&[("http-proxy-ports", "9100")])]),
    );
    assert!(index.apply_config(Event::Delete(config(&[]))));
    assert_eq!(extra_ports(&mut index), ports(&[9100]));
    assert!(problems(&mut index)[0].contains("its ports 9100 stay tunnelled"));
    assert!(!apply_config(&mut index, listed([])), "still gone");

    assert!(index.apply_config(Event::Apply(config(&[("http-proxy-ports", "")]))));
    assert_eq!(extra_ports(&mut index), ports(&[]), "emptied on purpose");
    assert!(index.apply_config(Event::Delete(config(&[]))));
    assert_eq!(problems(&mut index), [""; 0], "nothing was lost");
}

#[test]
fn a_config_map_that_never_was_asks_for_nothing_and_is_fine() {
    let mut index = index();
    assert!(apply_config(&mut index, listed([])));
    assert!(index.heard_config());
    assert_eq!(extra_ports(&mut index), ports(&[]));
    assert_eq!(problems(&mut index), [""; 0]);
}

#[test]
fn what_was_saved_is_in_force_until_the_api_server_speaks() {
    let mut before = with_nodes([
        edge("e1", &["10.0.0.1"]),
        edge("e2", &["10.1.0.1"]),
        cloud("c1", &["10.1.0.1"]),
    ]);
    apply_config(
        &mut before,
        listed([config(&[("http-proxy-ports", "9100,x")])]),
    );
    view(&mut before);
    let mut after = Index::new(rules(), Some(before.to_save(NOW)));
    assert_eq!(view(&mut after).snapshot, view(&mut before).snapshot);
    assert_eq!(problems(&mut after), problems(&mut before));
    assert!(!after.heard_nodes() && !after.heard_config());

    apply_config(&mut after, listed([]));
    assert_eq!(
        extra_ports(&mut after),
        ports(&[9100]),
        "deleted while nobody looked"
    );
    assert!(
        problems(&mut after)
            .iter()
            .any(|problem| problem.contains("it is gone"))
    );
    assert!(hear_nodes(&mut after, listed([edge("e3", &["10.0.0.3"])])));
    assert_eq!(names(&mut after), ["e3"]);
}

#[test]
fn ten_thousand_nodes_one_after_another_take_no_time() {
    let mut index = with_nodes([]);
    let started = Instant::now();
    for n in 0..10_000 {
        let address = format!("10.{}.{}.1", n / 250, n % 250);
        index.apply_node(Event::Apply(node(
            &format!("edge-{n}"),
            &[EDGE],
            &[("InternalIP", &address)],
        )));
    }
    let applied = started.elapsed();
    let started = Instant::now();
    let snapshot = view(&mut index).snapshot;
    assert_eq!(snapshot.owned_addresses().count(), 10_000);
    let viewed = started.elapsed();
    eprintln!("10,000 nodes read and applied in {applied:?}, one snapshot of them in {viewed:?}");
    // Unoptimised, on a busy machine: far above what is measured, far below a quadratic time.
    assert!(applied.as_secs() < 20 && viewed.as_secs() < 2);
}
