use std::time::Instant;

use super::*;
use crate::kubernetes::source::testing::{EDGE, cloud, edge, listed, node, ports, rules};

fn index() -> Index {
    Index::new(rules(), [], None)
}

fn with_nodes(objects: impl IntoIterator<Item = NodeObject>) -> Index {
    let mut index = index();
    hear_nodes(&mut index, listed(objects));
    index
}

fn hear_nodes(index: &mut Index, events: impl IntoIterator<Item = Event<NodeObject>>) -> bool {
    let mut changed = false;
    for event in events {
        changed = index.hear_node(event);
    }
    changed
}

fn hear_config(index: &mut Index, events: impl IntoIterator<Item = Event<ConfigMap>>) -> bool {
    let mut changed = false;
    for event in events {
        changed = index.hear_config(event);
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

fn names(index: &Index) -> Vec<String> {
    let view = index.view();
    view.snapshot
        .nodes()
        .keys()
        .map(ToString::to_string)
        .collect()
}

fn findings(index: &Index) -> Vec<String> {
    index
        .view()
        .findings
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn extra_ports(index: &Index) -> PortSet {
    index.view().snapshot.ports() - &ports(&[10250, 10255])
}

#[test]
fn nodes_come_change_and_go_as_they_do_in_the_cluster() {
    let mut index = with_nodes([edge("e1", &["10.0.0.1"]), cloud("c1", &["10.1.0.1"])]);
    assert_eq!(names(&index), ["e1"]);
    assert!(index.hear_node(Event::Apply(edge("e2", &["10.0.0.2"]))));
    assert!(
        !index.hear_node(Event::Apply(edge("e2", &["10.0.0.2"]))),
        "nothing new"
    );
    assert_eq!(names(&index), ["e1", "e2"]);

    assert!(index.hear_node(Event::Apply(edge("e2", &["10.0.0.22"]))));
    let snapshot = index.view().snapshot;
    assert!(snapshot.owner("10.0.0.2".parse().unwrap()).is_none());
    assert!(snapshot.owner("10.0.0.22".parse().unwrap()).is_some());

    assert!(
        index.hear_node(Event::Apply(cloud("e2", &["10.0.0.22"]))),
        "lost its label"
    );
    assert_eq!(names(&index), ["e1"]);
    assert!(index.hear_node(Event::Delete(edge("e1", &[]))));
    assert!(!index.hear_node(Event::Delete(edge("e1", &[]))));
    assert_eq!(names(&index), [""; 0]);
}

#[test]
fn a_list_counts_once_it_is_whole() {
    let mut index = with_nodes([edge("e1", &["10.0.0.1"]), edge("e2", &["10.0.0.2"])]);
    assert!(index.heard_nodes());
    assert!(!index.hear_node(Event::Init));
    assert!(!index.hear_node(Event::InitApply(edge("e3", &["10.0.0.3"]))));
    assert_eq!(names(&index), ["e1", "e2"], "half a list is none");
    // It broke, and begins again.
    assert!(!index.hear_node(Event::Init));
    assert!(!index.hear_node(Event::InitApply(edge("e2", &["10.0.0.2"]))));
    assert!(index.hear_node(Event::InitDone));
    assert_eq!(names(&index), ["e2"]);
    let same = listed([edge("e2", &["10.0.0.2"])]);
    assert!(!hear_nodes(&mut index, same), "the same list is no change");
}

#[test]
fn an_address_of_two_nodes_is_neithers_whatever_the_second_is() {
    let mut index = with_nodes([
        edge("e1", &["10.0.0.1", "10.0.0.9"]),
        edge("e2", &["10.0.0.1"]),
        edge("e3", &["10.1.0.1"]),
        cloud("c1", &["10.1.0.1"]),
    ]);
    let snapshot = index.view().snapshot;
    let owned: Vec<String> = snapshot
        .owned_addresses()
        .map(|(ip, _)| ip.to_string())
        .collect();
    assert_eq!(owned, ["10.0.0.9"]);
    assert_eq!(snapshot.nodes().len(), 3, "all are reached by name");
    let findings = findings(&index);
    assert!(
        findings[0].contains("10.0.0.1 is the address of nodes e1 and e2"),
        "{findings:?}"
    );
    assert!(
        findings[1].contains("10.1.0.1 is the address of nodes c1 and e3"),
        "{findings:?}"
    );
    index.hear_node(Event::Delete(edge("e2", &[])));
    index.hear_node(Event::Delete(edge("c1", &[])));
    assert_eq!(index.view().snapshot.owned_addresses().count(), 3);
    assert!(index.view().findings.is_empty());
}

#[test]
fn an_external_address_of_another_node_is_not_taken_either() {
    let external = node("c1", &[], &[("ExternalIP", "192.0.2.1")]);
    let index = with_nodes([edge("e1", &["192.0.2.1"]), external]);
    assert_eq!(index.view().snapshot.owned_addresses().count(), 0);
    assert_eq!(index.view().findings.len(), 1);
}

#[test]
fn a_node_with_a_name_that_is_none_is_a_finding_until_it_is_gone() {
    let mut index = with_nodes([edge("e1", &["10.0.0.1"]), edge("No Node", &["10.0.0.2"])]);
    assert_eq!(names(&index), ["e1"]);
    assert!(findings(&index)[0].contains("\"No Node\" is not a node name"));
    assert!(index.hear_node(Event::Delete(edge("No Node", &[]))));
    assert!(index.view().findings.is_empty());
}

#[test]
fn ports_follow_the_config_map() {
    let mut index = index();
    assert!(!index.heard_config());
    assert_eq!(extra_ports(&index), ports(&[]));
    assert!(hear_config(
        &mut index,
        listed([config(&[("http-proxy-ports", "9100")])])
    ));
    assert_eq!(extra_ports(&index), ports(&[9100]));
    let data = [
        ("http-proxy-ports", "9100,x"),
        ("localhost-proxy-ports", "10266"),
    ];
    assert!(index.hear_config(Event::Apply(config(&data))));
    assert_eq!(extra_ports(&index), ports(&[9100, 10266]));
    assert_eq!(index.view().snapshot.loopback_ports(), &ports(&[10266]));
    let finding = &findings(&index)[0];
    assert!(
        finding.starts_with("ConfigMap kube-system/ports: http-proxy-ports: \"x\" left out"),
        "{finding}"
    );
    assert_eq!(index.ports_config().uid.as_deref(), Some("u-1"));
}

#[test]
fn flags_and_the_kubelets_ports_are_tunnelled_whatever_the_config_map_says() {
    let with_flag = Rules {
        ports: ports(&[9999]),
        ..rules()
    };
    let mut index = Index::new(with_flag, [], None);
    hear_config(&mut index, listed([config(&[])]));
    assert_eq!(index.view().snapshot.ports(), &ports(&[9999, 10250, 10255]));
}

#[test]
fn a_config_map_that_is_deleted_leaves_its_ports_and_a_finding() {
    let mut index = index();
    hear_config(
        &mut index,
        listed([config(&[("http-proxy-ports", "9100")])]),
    );
    assert!(index.hear_config(Event::Delete(config(&[]))));
    assert_eq!(extra_ports(&index), ports(&[9100]));
    assert!(findings(&index)[0].contains("its ports 9100 stay tunnelled"));
    assert!(!hear_config(&mut index, listed([])), "still gone");

    assert!(index.hear_config(Event::Apply(config(&[("http-proxy-ports", "")]))));
    assert_eq!(extra_ports(&index), ports(&[]), "emptied on purpose");
    assert!(index.hear_config(Event::Delete(config(&[]))));
    assert_eq!(findings(&index), [""; 0], "nothing was lost");
}

#[test]
fn a_config_map_that_never_was_asks_for_nothing_and_is_fine() {
    let mut index = index();
    assert!(hear_config(&mut index, listed([])));
    assert!(index.heard_config());
    assert_eq!(extra_ports(&index), ports(&[]));
    assert_eq!(findings(&index), [""; 0]);
}

#[test]
fn what_was_saved_is_in_force_until_the_api_server_speaks() {
    let mut before = with_nodes([
        edge("e1", &["10.0.0.1"]),
        edge("e2", &["10.1.0.1"]),
        cloud("c1", &["10.1.0.1"]),
    ]);
    hear_config(
        &mut before,
        listed([config(&[("http-proxy-ports", "9100,x")])]),
    );
    let (nodes, ports_config) = before.to_save();
    let mut after = Index::new(rules(), nodes, ports_config);
    assert_eq!(after.view().snapshot, before.view().snapshot);
    assert_eq!(findings(&after), findings(&before));
    assert!(!after.heard_nodes() && !after.heard_config());

    hear_config(&mut after, listed([]));
    assert_eq!(
        extra_ports(&after),
        ports(&[9100]),
        "deleted while nobody looked"
    );
    assert!(
        findings(&after)
            .iter()
            .any(|finding| finding.contains("it is gone"))
    );
    assert!(hear_nodes(&mut after, listed([edge("e3", &["10.0.0.3"])])));
    assert_eq!(names(&after), ["e3"]);
}

#[test]
fn ten_thousand_nodes_one_after_another_take_no_time() {
    let mut index = with_nodes([]);
    let started = Instant::now();
    for n in 0..10_000 {
        let address = format!("10.{}.{}.1", n / 250, n % 250);
        index.hear_node(Event::Apply(node(
            &format!("edge-{n}"),
            &[EDGE],
            &[("InternalIP", &address)],
        )));
    }
    let applied = started.elapsed();
    let started = Instant::now();
    let snapshot = index.view().snapshot;
    assert_eq!(snapshot.owned_addresses().count(), 10_000);
    let viewed = started.elapsed();
    eprintln!("10,000 nodes read and applied in {applied:?}, one snapshot of them in {viewed:?}");
    // Unoptimised, on a busy machine: far above what is measured, far below a quadratic time.
    assert!(applied.as_secs() < 20 && viewed.as_secs() < 2);
}
