//! From a real Yurt-Tunnel to Culvert as the manual tells, node by node, under an open `exec` and a scraper. It takes a
//! cluster of its own, and a name that comes before those of the shared one: there is room for one at a time.

use std::fs;
use std::process::Child;
use std::time::Duration;

use culvert_tests::cluster::yurt_tunnel;
use culvert_tests::cluster::{self, Cluster, repository, wait_until};
use culvert_tests::{Daemon, command, programs};
use rustix::process::{Pid, Signal, kill_process};
use tunnel_user::observability::status::StatusReport;

use crate::pods;
use crate::stage::{self, PATIENCE, processes};

const MANUAL: &str = "docs/migrate-from-yurt-tunnel.md";
/// A job is run, servers and agents are exchanged.
const LONG: Duration = Duration::from_mins(5);
/// Nobody counts so far.
const TICKS: &str = "i=0; while sleep 0.2; do i=$((i+1)); echo tick $i; done";

/// Ends with its cluster.
struct Migration {
    cluster: Cluster,
    owner: Child,
}

impl Migration {
    /// A cluster on which Yurt-Tunnel serves.
    fn begin() -> Self {
        let directory = stage::named("cluster-migration");
        cluster::down(&directory).unwrap();
        let mut owner = stage::serve(&directory);
        cluster::wait_for_owner(&directory, || matches!(owner.try_wait(), Ok(None))).unwrap();
        let cluster = Cluster::open(&directory).unwrap();
        let migration = Self { cluster, owner };
        // Its rules see only what has a route.
        let control = migration.cluster.lab().control();
        control
            .ip("route add 10.78.0.0/24 via 10.77.0.254")
            .unwrap();
        yurt_tunnel::install(&migration.cluster).unwrap();
        migration
    }

    /// Runs a block of the manual, with the overlays as machines that share a kernel need them.
    fn run(&self, section: &str, block: usize) -> String {
        let manual = fs::read_to_string(repository().join(MANUAL)).unwrap();
        let mut sections = manual.split("\n### ");
        let section = sections.find(|text| text.starts_with(section)).unwrap();
        let mut lines = section.split("```").nth(2 * block + 1).unwrap().to_owned();
        for over in [
            "overlays/beside-yurt-tunnel",
            "overlays/after-yurt-tunnel",
            "base",
        ] {
            let named = format!("apply -k deploy/kubernetes/{over}\n");
            if lines.contains(&named) {
                let overlay = self.cluster.culvert_overlay(over).unwrap();
                lines = lines.replace(&named, &format!("apply -k {}\n", overlay.display()));
            }
        }
        let kubectl = self.cluster.kubectl_launch().unwrap();
        let functions = format!("set -eu\nkubectl() {{ {} \"$@\"; }}", kubectl.to_shell());
        let script = format!("{functions}\ncd {}\n{lines}", repository().display());
        let sh = kubectl.with_program("sh").arg("-c").arg(script);
        sh.start().unwrap().succeed(LONG).unwrap()
    }

    fn status(&self) -> anyhow::Result<StatusReport> {
        Ok(serde_json::from_value(self.cluster.culvert_status()?)?)
    }

    /// Moves a node, and waits until it has a session.
    fn move_node(&self, node: &str) {
        self.cluster
            .kubectl(["label", "node", node, "culvert.dev/moved=true"])
            .unwrap();
        wait_until(&format!("{node} has a session"), PATIENCE, || {
            yurt_tunnel::approve_pending(&self.cluster)?;
            let sessions = self.status()?.sessions;
            Ok(sessions
                .iter()
                .any(|one| one.node.as_str() == node)
                .then_some(()))
        })
        .unwrap();
    }

    /// Asks both kubelets, ten times a second, and says how that went.
    fn scraper(&self) -> Daemon {
        let ask =
            "curl -sf -m 20 -o /dev/null http://10.78.0.1$node:10255/healthz || echo FAILED $node";
        let line =
            format!("while :; do for node in 1 2; do {ask}; done; echo round; sleep 0.1; done");
        let sh = self
            .cluster
            .control_plane()
            .launch("sh")
            .arg("-c")
            .arg(line);
        let mut scraper = sh.start().unwrap();
        scraper.wait_for_line("round", PATIENCE).unwrap();
        scraper
    }

    /// The rules of table `nat` on the control plane that are Yurt-Tunnel's.
    fn rules(&self) -> usize {
        let mut save = self.cluster.lab().control().command("iptables-save");
        let saved = command::output_of(save.args(["-t", "nat"]), "").unwrap();
        saved
            .lines()
            .filter(|line| line.contains("TUNNEL-PORT"))
            .count()
    }

    fn logs_work(&self) {
        for pod in ["on-1", "on-2"] {
            wait_until(&format!("logs of {pod}"), PATIENCE, || {
                let words = ["logs", "--tail=1", "--request-timeout=5s", pod];
                Ok(self.cluster.kubectl(words)?.contains("tick").then_some(()))
            })
            .unwrap();
        }
    }

    /// Hangs Yurt-Tunnel's server, so that it cannot remove its rules, and deletes it.
    fn crash_their_server(&self) {
        let control = self.cluster.control_plane();
        let servers = processes(control, "yurt-tunnel-ser");
        for server in &servers {
            kill_process(Pid::from_raw(*server).unwrap(), Signal::STOP).unwrap();
        }
        let of_theirs = ["-n", "kube-system", "delete", "--wait=false"];
        let pods = [
            "--grace-period=1",
            "pod",
            "-l",
            "k8s-app=yurt-tunnel-server",
        ];
        let deployment = ["deployment", yurt_tunnel::SERVER];
        self.cluster
            .kubectl(of_theirs.iter().chain(&deployment))
            .unwrap();
        self.cluster.kubectl(of_theirs.iter().chain(&pods)).unwrap();
        wait_until("their server has ended", PATIENCE, || {
            Ok(processes(control, "yurt-tunnel-ser")
                .is_empty()
                .then_some(()))
        })
        .unwrap();
    }
}

impl Drop for Migration {
    fn drop(&mut self) {
        if let Err(error) = cluster::down(self.cluster.directory()) {
            eprintln!("the cluster stays behind: {error:#}");
        }
        // It has ended or has just been ended.
        let _ = self.owner.wait();
    }
}

fn no_round_failed(scraper: &Daemon) {
    let said = scraper.output();
    assert!(!said.contains("FAILED"), "{said}");
    assert!(said.matches("round").count() > 20, "{said}");
}

#[test]
fn nodes_move_from_a_yurt_tunnel_that_serves_and_no_client_notices() {
    let migration = Migration::begin();
    let cluster = &migration.cluster;
    for (pod, node) in [("on-1", "edge-1"), ("on-2", "edge-2")] {
        pods::running(cluster, pod, node, TICKS);
    }
    migration.logs_work();
    let kubectl = cluster.kubectl_launch().unwrap();
    let mut exec = kubectl
        .words("exec on-1 -- sh -c")
        .arg(TICKS)
        .start()
        .unwrap();
    exec.wait_for_line("tick 5", PATIENCE).unwrap();
    let mut scraper = migration.scraper();

    cluster.import_culvert().unwrap();
    migration.run("1. Culvert beside it", 0);
    wait_until("Culvert's server takes clients", PATIENCE, || {
        yurt_tunnel::approve_pending(cluster)?;
        let status = migration.status()?;
        Ok(status.conditions.iter().all(|one| one.ready).then_some(()))
    })
    .unwrap();
    let redirect = migration.status().unwrap().redirect.unwrap();
    assert_eq!(redirect.yurt_tunnel_rules.len(), 1, "{redirect:?}");
    migration.logs_work();
    assert_eq!(migration.status().unwrap().sessions.len(), 0);
    migration.move_node("edge-1");
    migration.logs_work();
    let carried = |migration: &Migration| {
        let sessions = migration.status().unwrap().sessions;
        sessions.iter().map(|one| one.bytes_to_client).sum::<u64>()
    };
    let before = carried(&migration);
    wait_until("Culvert carries the scraper", PATIENCE, || {
        Ok((carried(&migration) > before + 1000).then_some(()))
    })
    .unwrap();
    migration.move_node("edge-2");
    migration.logs_work();
    // The exec is Yurt-Tunnel's still.
    exec.forget_output();
    exec.wait_for_line("tick", PATIENCE).unwrap();
    no_round_failed(&scraper);

    migration.run("3. Yurt-Tunnel's agents go", 0);
    migration.logs_work();
    migration.crash_their_server();
    assert!(migration.rules() > 0);
    let said = migration.run("4. Its server goes, and its rules", 1);
    assert!(said.contains("nf_tables, IPv4: removed "), "{said}");
    assert_eq!(migration.rules(), 0);
    migration.logs_work();
    no_round_failed(&scraper);
    scraper.kill().unwrap();

    migration.run("5. Culvert in its place", 0);
    cluster.wait_for_culvert().unwrap();
    migration.run("5. Culvert in its place", 1);
    cluster.wait_for_culvert().unwrap();
    wait_until(
        "both nodes have sessions at the usual port",
        PATIENCE,
        || Ok((migration.status()?.sessions.len() == 2).then_some(())),
    )
    .unwrap();
    migration.logs_work();
    let mut scraper = migration.scraper();
    std::thread::sleep(Duration::from_secs(5));
    no_round_failed(&scraper);
    scraper.kill().unwrap();
    assert!(
        cluster
            .culvert_metrics()
            .unwrap()
            .contains("culvert_server_sessions 2")
    );
    let log = stage::server_log(cluster).unwrap();
    assert!(
        log.contains("10.77.0.1:10262") || log.contains("[::]:10262"),
        "{log}"
    );
}

/// The lists by which the translated command lines are checked.
#[test]
fn the_lists_of_flags_are_those_of_the_real_programs() {
    for (program, list) in [
        (yurt_tunnel::SERVER, "server-flags.txt"),
        (yurt_tunnel::AGENT, "agent-flags.txt"),
    ] {
        let real = programs::of_module("openyurt", program).unwrap();
        let help = command::run(real.to_str().unwrap(), ["--help"]).unwrap();
        let real: Vec<_> = help.lines().filter_map(listed).collect();
        let path = repository()
            .join("tunnel-user/src/cli/yurt_tunnel")
            .join(list);
        let known = fs::read_to_string(&path).unwrap();
        assert_eq!(
            known.lines().collect::<Vec<_>>(),
            real,
            "{}",
            path.display()
        );
    }
}

/// A line of the help as it stands in the lists: names, type and default.
fn listed(line: &str) -> Option<String> {
    let line = line.trim_start();
    if !line.starts_with('-') || line.starts_with("-h,") {
        return None;
    }
    let (flag, meaning) = line.split_once("   ")?;
    let (names, kind) = match flag.rsplit_once(' ') {
        Some((names, kind)) if !kind.starts_with('-') => (names, kind),
        _ => (flag, "bool"),
    };
    let default = meaning
        .rsplit_once("(default ")
        .map_or("", |(_, default)| default);
    let default = default.trim_end_matches(')').trim_matches('"');
    Some(format!("{names} {kind} = {default}").trim_end().to_owned())
}
