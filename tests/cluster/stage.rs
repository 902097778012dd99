//! The cluster that the tests share, made by a process that removes it when the tests have ended, however they end.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use culvert_tests::cluster::{self, Cluster, Directory};
use culvert_tests::programs;

/// How long a pod or the like may take on a machine that does much else; no test waits it out.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The shared cluster, up and Ready.
pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        // Wait for a cluster of a run before, whose process removes it as well.
        cluster::down(&directory()).unwrap();
        let mut owner = serve(&directory());
        let alive = || matches!(owner.try_wait(), Ok(None));
        if let Err(error) = cluster::wait_for_owner(&directory(), alive) {
            panic!("{error:#}; it said:\n{}", said());
        }
        Cluster::open(&directory()).unwrap()
    })
}

/// Where the tests' clusters are: not where a developer's is.
pub(crate) fn directory() -> Directory {
    Directory::new(programs::target_directory().unwrap().join("cluster-test")).unwrap()
}

/// Starts the process that makes and owns a cluster, and removes it when this process has ended.
pub(crate) fn serve(directory: &Directory) -> Child {
    let log = File::create(log()).unwrap();
    let own = std::process::id().to_string();
    Command::new(programs::cluster().unwrap())
        .arg("--directory")
        .arg(directory.root())
        .args(["serve", "--until", &own])
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn said() -> String {
    std::fs::read_to_string(log()).unwrap_or_default()
}

fn log() -> PathBuf {
    directory().root().with_extension("log")
}
