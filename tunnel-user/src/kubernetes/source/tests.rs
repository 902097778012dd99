use std::time::Duration;

use tokio::sync::watch;

use super::*;

/// A client of an API server that is not there.
fn nobody() -> kube::Client {
    let url = "http://127.0.0.1:1".parse().unwrap();
    kube::Client::try_from(kube::Config::new(url)).unwrap()
}

fn start(state_dir: &std::path::Path) -> (Source, SnapshotReader, watch::Receiver<SourceHealth>) {
    let client = nobody();
    let (events, _writer) = Events::new(client.clone(), "test");
    let options = SourceOptions {
        client,
        selectors: testing::rules().selectors,
        ports_config: "kube-system/ports".parse().unwrap(),
        extra_ports: PortSet::new(),
        reserved_ports: PortSet::new(),
        state_dir: state_dir.to_owned(),
        events,
        leading: watch::Sender::new(false).subscribe(),
    };
    Source::new(options).unwrap()
}

fn save(dir: &std::path::Path, written_at: OffsetDateTime) -> Snapshot {
    let mut index = Index::new(testing::rules(), [], None);
    for event in testing::listed([testing::edge("e1", &["10.0.0.1"])]) {
        index.hear_node(event);
    }
    let file = SavedFile::open(dir).unwrap();
    let saved = Saved::new(index.to_save(), written_at);
    std::fs::write(
        dir.join("cluster.json"),
        serde_json::to_vec(&saved).unwrap(),
    )
    .unwrap();
    assert!(file.read().is_some());
    index.view().snapshot
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
