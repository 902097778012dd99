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
            let said = std::fs::read_to_string(log(&directory())).unwrap_or_default();
            panic!("{error:#}; it said:\n{said}");
        }
        Cluster::open(&directory()).unwrap()
    })
}

/// The shared cluster with Culvert on it: installed by one command, and nothing approved by anybody.
pub(crate) fn culvert() -> &'static Cluster {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    let cluster = cluster();
    INSTALLED.get_or_init(|| cluster.install_culvert().unwrap());
    cluster
}

/// What the server has carried so far, both ways.
pub(crate) fn carried_bytes() -> u64 {
    metric("culvert_server_carried_bytes_total")
}

/// The sum of a metric over its labels.
pub(crate) fn metric(name: &str) -> u64 {
    let metrics = cluster().culvert_metrics().unwrap();
    let lines = metrics.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{']))
    });
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum()
}

/// Where the tests' clusters are: not where a developer's is.
pub(crate) fn directory() -> Directory {
    named("cluster-test")
}

/// A cluster of its own, beside the shared one.
pub(crate) fn named(name: &str) -> Directory {
    Directory::new(programs::target_directory().unwrap().join(name)).unwrap()
}

/// Starts the process that makes and owns a cluster, and removes it when this process has ended.
pub(crate) fn serve(directory: &Directory) -> Child {
    let log = File::create(log(directory)).unwrap();
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

fn log(directory: &Directory) -> PathBuf {
    directory.root().with_extension("log")
}
