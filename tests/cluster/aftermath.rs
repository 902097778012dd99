//! A cluster whose process was killed leaves nothing once it is down.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Child;

use culvert_tests::cluster::{self, Cluster, Directory};
use culvert_tests::until;

use crate::stage::{self, PATIENCE};

/// Parameters of the kernel that a kubelet sets.
const TUNABLES: [&str; 3] = [
    "vm/overcommit_memory",
    "kernel/panic",
    "kernel/panic_on_oops",
];

#[test]
fn nothing_stays_behind_of_a_cluster_that_was_killed_half_way() {
    let before = tunables();
    let mut owner = stage::serve(&directory());
    let (prefix, directory) = (prefix(&owner), directory());
    // Its log may be one of a cluster whose end somebody cut short.
    until("the API server has started", PATIENCE, || {
        let traces = traces(&prefix, directory.root());
        let runs =
            |trace: &String| trace.starts_with("process") && trace.contains("kube-apiserver");
        Ok(traces.iter().any(runs).then_some(()))
    })
    .unwrap();
    comes_down_after_a_kill(&mut owner, &before);
}

#[test]
fn nothing_stays_behind_of_a_whole_cluster_that_was_killed() {
    let before = tunables();
    let mut owner = stage::serve(&directory());
    let alive = || matches!(owner.try_wait(), Ok(None));
    cluster::wait_for_owner(&directory(), alive).unwrap();
    let cluster = Cluster::open(&directory()).unwrap();
    crate::pods::sleeping(&cluster, "left", "edge-1");
    // Its programs are this process's, and the cluster's all the same.
    cluster.start_worker().unwrap();
    crate::pods::sleeping(&cluster, "left-in-the-cloud", cluster.worker().name());
    comes_down_after_a_kill(&mut owner, &before);
}

fn directory() -> Directory {
    stage::named("cluster-killed")
}

/// Of all names that the cluster gives.
fn prefix(owner: &Child) -> String {
    format!("cvt-{}-", owner.id())
}

fn comes_down_after_a_kill(owner: &mut Child, before: &[String]) {
    owner.kill().unwrap();
    owner.wait().unwrap();
    let prefix = prefix(owner);
    let directory = directory();
    let there = traces(&prefix, directory.root());
    for kind in ["cgroup", "namespace", "process"] {
        let found = there.iter().any(|trace| trace.starts_with(kind));
        assert!(found, "no {kind} to remove: {there:?}");
    }
    assert!(cluster::down(&directory).unwrap());
    assert_eq!(traces(&prefix, directory.root()), BTreeSet::new());
    assert!(!directory.root().exists());
    assert_eq!(tunables(), before);
    assert!(!cluster::down(&directory).unwrap(), "it was down already");
    fs::remove_file(directory.root().with_extension("log")).unwrap();
}

/// Everything on this machine that belongs to the cluster: by the names that its process gave, or by its directory.
fn traces(prefix: &str, root: &Path) -> BTreeSet<String> {
    let root = root.to_str().unwrap();
    let mut traces = BTreeSet::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in mounts.lines() {
        let point = line.split(' ').nth(4).unwrap();
        if point.starts_with(root) {
            traces.insert(format!("mount {point}"));
        }
        if line.contains(" - cgroup") {
            traces.extend(names(Path::new(point), prefix).map(|name| format!("cgroup {name}")));
        }
    }
    let namespaces = Path::new("/run/netns");
    traces.extend(names(namespaces, prefix).map(|name| format!("namespace {name}")));
    traces.extend(names(Path::new("/sys/fs/bpf"), prefix).map(|name| format!("pin {name}")));
    let networks = Path::new("/var/lib/cni/results");
    traces.extend(names(networks, prefix).map(|name| format!("network {name}")));
    for process in names(Path::new("/proc"), "") {
        let command = fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
        if command.contains(root) {
            traces.insert(format!("process {process} {command}"));
        }
    }
    for link in names(Path::new("/var/log/containers"), "") {
        let target = fs::read_link(Path::new("/var/log/containers").join(&link));
        if target.is_ok_and(|target| target.starts_with(root)) {
            traces.insert(format!("link {link}"));
        }
    }
    traces
}

fn names(directory: &Path, prefix: &str) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(move |name| name.starts_with(prefix))
}

fn tunables() -> Vec<String> {
    let path = |name: &&str| format!("/proc/sys/{name}");
    let value = |name| fs::read_to_string(path(name)).unwrap();
    TUNABLES.iter().map(value).collect()
}
