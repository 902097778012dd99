use std::{fs, time::Instant};

use time::macros::datetime;
use tokio::time::sleep;

use super::*;
use crate::kubernetes::source::{
    index::Index,
    testing::{cloud, edge, listed, nobody, rules},
};

const NOW: OffsetDateTime = datetime!(2026-01-01 12:00:00.5 UTC);

fn saved(nodes: usize) -> Saved {
    let mut index = Index::new(rules(), None);
    let edges = (0..nodes).map(|n| edge(&format!("e{n}"), &["10.0.0.1", "fd00::1"]));
    for event in listed(edges.chain([cloud("c1", &["10.1.0.1"])])) {
        index.apply_node(event);
    }
    let config = PortsConfig {
        uid: Some("u-1".to_owned()),
        data: [("http-proxy-ports".to_owned(), "9100".to_owned())].into(),
    };
    index.view(&nobody, NOW);
    let mut saved = index.to_save(NOW);
    saved.ports_config = Some(config);
    saved
}

#[test]
fn reads_back_what_it_writes() {
    let dir = tempfile::tempdir().unwrap();
    let file = SavedFile::open(dir.path()).unwrap();
    assert_eq!(file.read(), None);
    file.write(&saved(2)).unwrap();
    assert_eq!(file.read(), Some(saved(2)));
}

#[test]
fn a_file_that_cannot_be_used_is_as_good_as_none() {
    let dir = tempfile::tempdir().unwrap();
    let file = SavedFile::open(dir.path()).unwrap();
    file.write(&saved(1)).unwrap();
    let whole = fs::read_to_string(dir.path().join(FILE)).unwrap();
    for content in [
        "",
        "{",
        &whole[..whole.len() / 2],
        r#"{"version":2}"#,
        &whole.replace("\"version\":2", "\"version\":1"),
        &whole.replace("10.0.0.1", "10.0.0.1000"),
        &whole.replace("\"e0\"", "\"E 0\""),
    ] {
        fs::write(dir.path().join(FILE), content).unwrap();
        assert_eq!(file.read(), None, "{content}");
    }
    fs::write(dir.path().join(FILE), whole).unwrap();
    assert_eq!(file.read(), Some(saved(1)), "the test spoils nothing else");
}

struct Keeping {
    dir: tempfile::TempDir,
    saved_tx: watch::Sender<Option<Arc<Saved>>>,
    task: tokio::task::JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Keeping {
    fn start(written: Option<Saved>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = SavedFile::open(dir.path()).unwrap();
        let (saved_tx, saved_rx) = watch::channel(None);
        let shutdown = CancellationToken::new();
        let keep = file.keep(written.map(Arc::new), saved_rx, shutdown.clone());
        Self {
            dir,
            saved_tx,
            task: tokio::spawn(keep),
            shutdown,
        }
    }

    fn send(&self, saved: Saved) {
        self.saved_tx.send_replace(Some(Arc::new(saved)));
    }

    async fn end(self) -> Option<Saved> {
        self.shutdown.cancel();
        drop(self.saved_tx);
        timeout(Duration::from_secs(10), self.task)
            .await
            .unwrap()
            .unwrap();
        SavedFile::open(self.dir.path()).unwrap().read()
    }
}

#[tokio::test]
async fn the_last_state_is_on_disk_at_the_end_and_the_end_does_not_wait() {
    let keeping = Keeping::start(None);
    keeping.send(saved(1));
    sleep(Duration::from_millis(300)).await;
    keeping.send(saved(2));
    let started = Instant::now();
    assert_eq!(keeping.end().await, Some(saved(2)));
    assert!(started.elapsed() < PAUSE, "took {:?}", started.elapsed());
}

#[tokio::test]
async fn what_says_the_same_as_the_file_is_not_written() {
    let keeping = Keeping::start(Some(saved(1)));
    let mut same = saved(1);
    same.written_at += Duration::from_secs(9);
    keeping.send(same);
    assert_eq!(keeping.end().await, None);
}

#[tokio::test]
async fn what_says_the_same_is_written_when_it_is_much_newer() {
    let keeping = Keeping::start(Some(saved(1)));
    let mut newer = saved(1);
    newer.written_at += FRESH;
    keeping.send(newer.clone());
    assert_eq!(keeping.end().await, Some(newer));
}

#[tokio::test]
async fn a_crowd_of_changes_is_written_as_one() {
    let keeping = Keeping::start(None);
    let path = keeping.dir.path().join(FILE);
    keeping.send(saved(1));
    let first = async {
        while !path.exists() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), first).await.unwrap();
    for nodes in 2..50 {
        keeping.send(saved(nodes));
        sleep(Duration::from_millis(1)).await;
    }
    let file = SavedFile::open(keeping.dir.path()).unwrap();
    assert_eq!(
        file.read().map(|saved| saved.nodes.len()),
        Some(2),
        "within the pause"
    );
    assert_eq!(keeping.end().await, Some(saved(49)));
}
