use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::kubernetes::{testing::absent_api_server, watch::WatchEvent};

fn start(state_dir: &std::path::Path) -> (Source, SnapshotReader, watch::Receiver<SourceHealth>) {
    let (events, _writer) = Events::new(absent_api_server(), "test");
    leading(state_dir, events, false)
}

fn leading(
    state_dir: &std::path::Path,
    events: Events,
    leading: bool,
) -> (Source, SnapshotReader, watch::Receiver<SourceHealth>) {
    let options = SourceOptions {
        client: absent_api_server(),
        selectors: testing::rules().selectors,
        ports_config: "kube-system/ports".parse().unwrap(),
        extra_ports: PortSet::new(),
        reserved_ports: PortSet::new(),
        node_networks: NodeNetworks::default(),
        kubelet_ports: PortSet::new(),
        api_server: watch::Sender::new(Some(Arc::default())).subscribe(),
        sessions: LiveSessions {
            name: Arc::new(testing::nobody),
            changes: watch::Sender::new(0).subscribe(),
        },
        state_dir: state_dir.to_owned(),
        events,
        leading: watch::Sender::new(leading).subscribe(),
        cloud_nodes: Gauge::default(),
    };
    Source::new(options).unwrap()
}

fn save(dir: &std::path::Path, written_at: OffsetDateTime) -> Snapshot {
    let mut index = Index::new(testing::rules(), None);
    for event in testing::listed([testing::edge("e1", &["10.0.0.1"])]) {
        index.apply_node(event);
    }
    let file = SavedFile::open(dir).unwrap();
    let snapshot = index.view(&testing::nobody, written_at).snapshot;
    let saved = index.to_save(written_at);
    std::fs::write(
        dir.join("cluster.json"),
        serde_json::to_vec(&saved).unwrap(),
    )
    .unwrap();
    assert!(file.read().is_some());
    snapshot
}

#[tokio::test]
async fn without_api_server_and_disk_there_is_an_empty_snapshot_and_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (source, snapshots, mut health) = start(dir.path());
    assert_eq!(**snapshots.borrow(), Snapshot::default());
    assert!(
        health
            .borrow()
            .ready()
            .unwrap_err()
            .contains("no snapshot yet")
    );
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(source.run(shutdown.clone(), shutdown.clone()));
    let refused = |health: &SourceHealth| {
        let reason = health.ready().err();
        reason.is_some_and(|reason| reason.contains("Connection refused"))
    };
    let patience = Duration::from_secs(10);
    let told = tokio::time::timeout(patience, health.wait_for(refused)).await;
    told.expect("the reason in time").unwrap();
    shutdown.cancel();
    running.await.unwrap();
    assert_eq!(**snapshots.borrow(), Snapshot::default());
}

#[tokio::test]
async fn without_api_server_the_snapshot_is_the_saved_one() {
    let dir = tempfile::tempdir().unwrap();
    let written_at = OffsetDateTime::now_utc() - Duration::from_hours(3);
    let saved = save(dir.path(), written_at);
    let (source, snapshots, mut health) = start(dir.path());
    assert_eq!(**snapshots.borrow(), saved);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(source.run(shutdown.clone(), shutdown.clone()));
    let lost = |health: &SourceHealth| matches!(health.nodes, WatchHealth::Lost { .. });
    let patience = Duration::from_secs(10);
    let told = tokio::time::timeout(patience, health.wait_for(lost)).await;
    let health = told.expect("the loss in time").unwrap().clone();
    assert_eq!(
        (health.ready(), health.origin),
        (Ok(()), Origin::Disk(written_at))
    );
    assert_eq!(
        health.confirmed_at(OffsetDateTime::now_utc()),
        Some(written_at)
    );
    shutdown.cancel();
    running.await.unwrap();
    assert_eq!(**snapshots.borrow(), saved);
}

#[tokio::test]
async fn a_config_map_that_cannot_be_read_is_told_of_while_nodes_can() {
    let dir = tempfile::tempdir().unwrap();
    let (events, mut notices) = Events::received();
    let (source, mut snapshots, health) = leading(dir.path(), events, true);
    let list = testing::listed([testing::edge("e1", &["10.0.0.1"])]);
    let (config_tx, config_rx) = mpsc::channel(1);
    let nodes = stream::iter(list.into_iter().map(WatchEvent::Event)).chain(stream::pending());
    let shutdown = CancellationToken::new();
    let (cluster_tx, cluster) = watch::channel(Known::default());
    let heard = Heard {
        nodes: nodes.boxed(),
        config: ReceiverStream::new(config_rx).boxed(),
        cluster,
        session_changes: source.session_changes,
        leading: source.leading,
    };
    let running = tokio::spawn(source.state.run(heard, shutdown.clone()));
    config_tx
        .send(WatchEvent::Lost("403 Forbidden".to_owned()))
        .await
        .unwrap();
    // Nothing is published before it is known what no node may claim.
    cluster_tx.send_modify(|known| known.asked = true);
    let patience = Duration::from_secs(10);
    let notice = tokio::time::timeout(patience, notices.recv()).await;
    let notice = notice.expect("a notice in time").unwrap();
    assert_eq!(notice.reason, "PortsConfigUnreadable");
    assert!(notice.note.contains("403 Forbidden"), "{}", notice.note);
    let is_there = |snapshot: &Arc<Snapshot>| snapshot.nodes().len() == 1;
    let published = tokio::time::timeout(patience, snapshots.wait_for(is_there)).await;
    published.expect("the nodes in time").unwrap();
    let later = OffsetDateTime::now_utc() + Duration::from_hours(1);
    let confirmed = health.borrow().confirmed_at(later).unwrap();
    assert!(confirmed < later, "the ports are not confirmed");
    shutdown.cancel();
    running.await.unwrap();
}
