use std::fs;

use tokio::time::timeout;

use super::*;
use crate::{
    model::{NodeName, TunnelPort},
    standalone::{
        Registration,
        testing::{TestState, now},
    },
};

const PATIENCE: Duration = Duration::from_secs(10);

fn registration(test: &TestState, node: &str, address: &str) -> Registration {
    let token = test.token(node, &[]);
    Registration {
        name: node.parse().unwrap(),
        addresses: vec![address.parse().unwrap()],
        enrolment: token.id().clone(),
        enrolled_at: now(),
        gate_policy: None,
    }
}

struct Running {
    reader: SnapshotReader,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(test: &TestState) -> Self {
        let ports = [TunnelPort::KUBELET].into();
        let (source, reader) = Source::new(&test.state, ports, NodeNetworks::default()).unwrap();
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(source.run(shutdown.clone()));
        Self {
            reader,
            shutdown,
            task,
        }
    }

    /// The next snapshot with this property.
    async fn until(&mut self, is: impl FnMut(&Arc<Snapshot>) -> bool) -> Arc<Snapshot> {
        let found = timeout(PATIENCE, self.reader.wait_for(is)).await;
        found.expect("a snapshot in time").unwrap().clone()
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

fn name(node: &str) -> NodeName {
    node.parse().unwrap()
}

#[tokio::test]
async fn nodes_come_and_go_in_the_running_server_as_their_files_do() {
    let test = TestState::new();
    test.state
        .register(&registration(&test, "edge-1", "10.0.0.1"))
        .unwrap();
    let mut source = Running::start(&test);
    let first = source.until(|s| s.nodes().len() == 1).await;
    assert_eq!(first.ports(), &[TunnelPort::KUBELET].into());

    let second = registration(&test, "edge-2", "10.0.0.2");
    test.state.register(&second).unwrap();
    let both = source.until(|s| s.nodes().len() == 2).await;
    assert_eq!(both.node(&name("edge-2")), Some(&second.node()));

    let other_process = State::open(test.state.dir.path()).unwrap();
    assert!(other_process.remove_node(&name("edge-1")).unwrap());
    let left = source.until(|s| s.nodes().len() == 1).await;
    assert_eq!(left.owner("10.0.0.1".parse().unwrap()), None);
    source.stop().await;
}

#[tokio::test]
async fn a_new_enrolment_of_a_node_changes_whom_it_admits() {
    let test = TestState::new();
    test.state
        .register(&registration(&test, "edge-1", "10.0.0.1"))
        .unwrap();
    let mut source = Running::start(&test);
    let again = registration(&test, "edge-1", "10.0.0.9");
    test.state.register(&again).unwrap();
    let admits = again.node().admits;
    source
        .until(|s| s.node(&name("edge-1")).unwrap().admits == admits)
        .await;
    source.stop().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_read_keeps_its_nodes_last_state() {
    let test = TestState::new();
    let good = registration(&test, "edge-1", "10.0.0.1");
    test.state.register(&good).unwrap();
    let mut source = Running::start(&test);
    fs::write(test.state.nodes.file("edge-1.json"), "{").unwrap();
    fs::write(
        test.state.nodes.file("edge-3.json"),
        serde_json::to_vec(&good).unwrap(),
    )
    .unwrap();
    // Comes after the damage, so it shows that the damage was seen.
    test.state
        .register(&registration(&test, "edge-2", "10.0.0.2"))
        .unwrap();
    let snapshot = source.until(|s| s.node(&name("edge-2")).is_some()).await;
    assert_eq!(snapshot.node(&name("edge-1")), Some(&good.node()));
    assert_eq!(
        snapshot.nodes().len(),
        2,
        "a file whose name is another node's counts for none"
    );
    source.stop().await;
}

#[test]
fn files_that_did_not_change_are_not_read_again() {
    let test = TestState::new();
    for n in 0..50 {
        let address = format!("10.0.0.{n}");
        test.state
            .register(&registration(&test, &format!("edge-{n}"), &address))
            .unwrap();
    }
    let mut scan = Scan::new(test.state.nodes.clone());
    assert_eq!(scan.refresh().unwrap(), 50);
    assert_eq!(scan.refresh().unwrap(), 0);
    test.state
        .register(&registration(&test, "edge-7", "10.0.1.7"))
        .unwrap();
    assert_eq!(scan.refresh().unwrap(), 1);
}
