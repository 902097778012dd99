use std::collections::BTreeMap;

use tokio::sync::mpsc;

use super::*;
use crate::kubernetes::source::{ports::Ports, testing::ports};

struct Reported {
    reporter: EventReporter,
    notices: mpsc::Receiver<EventRecord>,
}

impl Reported {
    fn new() -> Self {
        let (events, notices) = Events::received();
        let reporter = EventReporter::new(events);
        Self { reporter, notices }
    }

    /// The notices that follow from these problems, as object and reason.
    fn tell<'a>(
        &mut self,
        problems: impl IntoIterator<Item = &'a ClusterProblem>,
        leading: bool,
    ) -> Vec<(String, &'static str)> {
        let problems = problems.into_iter().cloned().collect();
        self.reporter.tell(problems, &config(), leading);
        self.received()
    }

    fn received(&mut self) -> Vec<(String, &'static str)> {
        let notices = std::iter::from_fn(|| self.notices.try_recv().ok());
        notices
            .map(|notice| (notice.about.name.unwrap(), notice.reason))
            .collect()
    }
}

fn config() -> ObjectReference {
    ObjectReference {
        name: Some("ports".to_owned()),
        ..ObjectReference::default()
    }
}

fn no_address(node: &str) -> ClusterProblem {
    ClusterProblem::Node {
        node: node.parse().unwrap(),
        problem: NodeProblem::NoAddress,
    }
}

fn shared(nodes: &[&str]) -> ClusterProblem {
    ClusterProblem::SharedAddress {
        address: "10.0.0.1".parse().unwrap(),
        nodes: nodes.iter().map(|node| node.parse().unwrap()).collect(),
    }
}

fn bad_port(value: &str) -> ClusterProblem {
    let data = BTreeMap::from([("http-proxy-ports".to_owned(), value.to_owned())]);
    ClusterProblem::Ports {
        config: "kube-system/ports".parse().unwrap(),
        problem: Ports::read(&data, &ports(&[])).problems.remove(0),
    }
}

fn about(node: &str, reason: &'static str) -> (String, &'static str) {
    (node.to_owned(), reason)
}

#[test]
fn a_leader_writes_each_finding_once_and_again_when_it_comes_back() {
    let mut told = Reported::new();
    let (one, other) = (no_address("e1"), bad_port("x"));
    assert_eq!(told.tell([&one], true), [about("e1", "NoNodeAddress")]);
    assert_eq!(told.tell([&one], true), []);
    let both = [&one, &other];
    assert_eq!(told.tell(both, true), [about("ports", "InvalidPorts")]);
    assert_eq!(told.tell([], true), []);
    assert_eq!(told.tell([&one], true), [about("e1", "NoNodeAddress")]);
}

#[test]
fn another_bad_value_is_another_finding() {
    let mut told = Reported::new();
    assert_eq!(told.tell([&bad_port("x")], true).len(), 1);
    assert_eq!(told.tell([&bad_port("y")], true).len(), 1);
}

#[test]
fn every_node_with_a_shared_address_hears_of_it() {
    let mut told = Reported::new();
    let reason = "SharedNodeAddress";
    let three = told.tell([&shared(&["c1", "e1", "e2"])], true);
    assert_eq!(three, ["c1", "e1", "e2"].map(|node| about(node, reason)));
    assert!(
        shared(&["c1", "e1", "e2"])
            .to_string()
            .contains("nodes c1, e1 and e2")
    );
}

#[test]
fn who_does_not_lead_writes_nothing_until_it_does() {
    let mut told = Reported::new();
    assert_eq!(told.tell([&no_address("e1"), &no_address("e2")], false), []);
    assert_eq!(told.tell([&no_address("e2")], false), []);
    told.reporter.tell_again(&config());
    assert_eq!(told.received(), [about("e2", "NoNodeAddress")]);
}

#[test]
fn an_object_without_a_name_is_only_logged() {
    let mut told = Reported::new();
    let problem = ClusterProblem::NodeName("\"X\" is not a node name".to_owned());
    assert_eq!(told.tell([&problem], true), []);
}
