//! The cluster that the tests share, made by a process that removes it when the tests have ended, however they end.

use std::process::Child;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Result;
use culvert_tests::cluster::{self, CULVERT_NAMESPACE, Cluster, Directory, Machine};
use culvert_tests::programs;

/// How long a pod or the like may take on a machine that does much else; no test waits it out.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// The shared cluster, up and Ready.
pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        // Wait for a cluster of a run before, whose process removes it as well.
        cluster::down(&directory()).unwrap();
        let mut owner = serve(&directory());
        let alive = || matches!(owner.try_wait(), Ok(None));
        if let Err(error) = cluster::wait_for_owner(&directory(), alive) {
            let said =
                std::fs::read_to_string(cluster::serve_log(&directory())).unwrap_or_default();
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

/// The processes of that name on a machine, pods included.
pub(crate) fn processes(machine: &Machine, name: &str) -> Vec<i32> {
    let cgroup = machine
        .cgroup()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    let is_one = |pid: &i32| {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
        read("comm").is_ok_and(|comm| comm.trim_end() == name)
            && read("cgroup").is_ok_and(|groups| groups.contains(&format!("/{cgroup}/")))
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(is_one)
        .collect()
}

/// Kills the one process of that name on a machine.
pub(crate) fn kill(machine: &Machine, name: &str) {
    let processes = processes(machine, name);
    assert_eq!(processes.len(), 1, "{name} on {}", machine.name());
    let process = rustix::process::Pid::from_raw(processes[0]).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
}

/// What the servers have said, one that only ends what it carries as well.
pub(crate) fn server_log(cluster: &Cluster) -> Result<String> {
    let servers = "logs --tail=-1 -l app.kubernetes.io/name=culvert-server -n";
    let words = servers.split(' ').chain([CULVERT_NAMESPACE]);
    cluster.kubectl(words)
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

/// How many connections the control plane's own server has relayed, at that side.
pub(crate) fn relayed(side: &str) -> u64 {
    let metrics = cluster().culvert_metrics().unwrap();
    relayed_in(&metrics, side).unwrap_or(0)
}

/// The same of the server that says these metrics, if it counts any.
pub(crate) fn relayed_in(metrics: &str, side: &str) -> Option<u64> {
    let name = format!("culvert_server_relayed_connections_total{{side=\"{side}\"}} ");
    let count = metrics.lines().find_map(|line| line.strip_prefix(&name));
    count.map(|count| count.parse().unwrap())
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
    cluster::serve(directory).unwrap()
}
