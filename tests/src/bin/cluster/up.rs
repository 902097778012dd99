//! Starts the owner in the background, waits for it, and tells how to use what it made.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};
use culvert_tests::cluster::{self, Cluster, Directory};
use culvert_tests::programs::Kubernetes;

pub(crate) fn run(directory: &Directory) -> Result<()> {
    let started = Instant::now();
    let log = log(directory);
    let mut owner = owner(directory, &log)?;
    let alive = || matches!(owner.try_wait(), Ok(None));
    cluster::wait_for_owner(directory, alive).with_context(|| {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        format!(
            "it said:\n{said}\nits programs' logs are in {}",
            directory.logs().display()
        )
    })?;
    tell(&Cluster::open(directory)?, started)
}

/// What the owner says; not in its directory, which it empties first.
pub(crate) fn log(directory: &Directory) -> PathBuf {
    directory.root().with_extension("log")
}

fn owner(directory: &Directory, log: &Path) -> Result<Child> {
    if let Some(parent) = log.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let log = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let own = std::env::current_exe().context("find the own binary")?;
    Command::new(own)
        .arg("--directory")
        .arg(directory.root())
        .arg("serve")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("start the cluster's process")
}

fn tell(cluster: &Cluster, started: Instant) -> Result<()> {
    print!("{}", cluster.kubectl(["get", "nodes", "-o", "wide"])?);
    let control = cluster.control_plane();
    let kubectl = Kubernetes::chosen()?.program("kubectl")?;
    println!(
        "\nUp after {:.1} s. The control plane's network is a namespace; use the cluster from there:\n\
         \n    nsenter --net={} {} --kubeconfig {} get nodes\n\
         \nWhat culvert captures: {}\nLogs: {}\nEnd it with: cargo xtask cluster down",
        started.elapsed().as_secs_f64(),
        cluster.lab().control().path().display(),
        kubectl.display(),
        cluster.directory().kubeconfig("admin").display(),
        control.cgroup().display(),
        cluster.directory().logs().display(),
    );
    Ok(())
}
