//! A cluster on which Yurt-Tunnel serves, and the manual's steps away from it.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Result;
use culvert_tests::cluster::yurt_tunnel;
use culvert_tests::cluster::{Cluster, OwnCluster, wait_until};
use culvert_tests::command;
use rustix::process::{Pid, Signal, kill_process};
use tunnel_user::observability::status::StatusReport;

use crate::manual;
use crate::stage::{self, PATIENCE, processes};

const MANUAL: &str = "docs/migrate-from-yurt-tunnel.md";
const MANIFESTS: [&str; 3] = [
    "overlays/beside-yurt-tunnel",
    "overlays/after-yurt-tunnel",
    "base",
];
const NODES: &str = "2. Node by node";
const THEIRS: &str = "yurt-tunnel-ser";

/// Ends with its cluster.
pub(super) struct Migration {
    cluster: OwnCluster,
}

impl Migration {
    /// A cluster on which Yurt-Tunnel serves, and on whose machines Culvert's image is.
    pub(super) fn begin() -> Self {
        let directory = stage::named("cluster-migration");
        let cluster = OwnCluster::bring_up(&directory).unwrap();
        let migration = Self { cluster };
        // Its rules see only what has a route.
        let control = migration.cluster.lab().control();
        control
            .ip("route add 10.78.0.0/24 via 10.77.0.254")
            .unwrap();
        yurt_tunnel::install(&migration.cluster).unwrap();
        migration.forget_how_services_were_made();
        migration.cluster.import_culvert().unwrap();
        migration
    }

    /// As if they had been created by something else than `kubectl apply`.
    fn forget_how_services_were_made(&self) {
        let annotate =
            "-n kube-system annotate service x-tunnel-server-svc x-tunnel-server-internal-svc";
        let annotation = "kubectl.kubernetes.io/last-applied-configuration-";
        self.cluster
            .kubectl(annotate.split(' ').chain([annotation]))
            .unwrap();
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Runs a block of the manual, with the overlays as machines that share a kernel need them.
    pub(super) fn run(&self, section: &str, block: usize) -> String {
        self.run_lines(&manual::block(MANUAL, section, block))
    }

    fn run_lines(&self, lines: &str) -> String {
        let mut lines = lines.to_owned();
        for over in MANIFESTS {
            let manifests = format!("deploy/kubernetes/{over}");
            if lines.contains(&manifests) {
                let overlay = self.cluster.culvert_overlay(over).unwrap();
                lines = manual::with_overlay(&lines, &manifests, &overlay);
            }
        }
        let began = Instant::now();
        let said = manual::run(&self.cluster, &lines);
        eprintln!(
            "{:.1} s for {}\n{said}",
            began.elapsed().as_secs_f64(),
            lines.trim()
        );
        said
    }

    fn status(&self) -> Result<StatusReport> {
        Ok(serde_json::from_value(self.cluster.culvert_status()?)?)
    }

    /// The nodes that have sessions: two while an agent changes from one to the next.
    pub(super) fn sessions(&self) -> BTreeSet<String> {
        let sessions = self.status().unwrap().sessions.into_iter();
        sessions.map(|one| one.node.to_string()).collect()
    }

    /// Approves what yurt-manager would, until Culvert's server takes clients beside Yurt-Tunnel's rules.
    pub(super) fn until_culvert_serves(&self) {
        wait_until("Culvert's server takes clients", PATIENCE, || {
            yurt_tunnel::approve_pending(&self.cluster)?;
            let conditions = self.status()?.conditions;
            Ok(conditions.iter().all(|one| one.ready).then_some(()))
        })
        .unwrap();
        let redirect = self.status().unwrap().redirect.unwrap();
        assert_eq!(redirect.yurt_tunnel_rules.len(), 1, "{redirect:?}");
    }

    /// Moves a node, and looks at it as the manual does.
    pub(super) fn move_one(&self, node: &str, pod: &str) -> String {
        let lines = manual::block(MANUAL, NODES, 0);
        let lines = lines
            .replace("POD-ON-EDGE", pod)
            .replace("NAMESPACE", "default");
        let lines = lines.replace("EDGE", node);
        let (label, look) = lines.trim().split_once('\n').unwrap();
        self.run_lines(label);
        self.until_moved(&[node]);
        self.run_lines(look)
    }

    /// Moves a node back, and waits until Culvert's agent has left it.
    pub(super) fn move_back(&self, node: &str) {
        self.run_lines(&manual::block(MANUAL, NODES, 1).replace("EDGE", node));
        wait_until("the session has ended", PATIENCE, || {
            Ok(self.status()?.sessions.is_empty().then_some(()))
        })
        .unwrap();
        self.pods_are_gone("app.kubernetes.io/name=culvert-agent");
    }

    /// Moves all nodes.
    pub(super) fn move_all(&self) {
        self.run(NODES, 2);
        self.until_moved(&["edge-1", "edge-2"]);
    }

    fn until_moved(&self, nodes: &[&str]) {
        wait_until(&format!("sessions of {nodes:?}"), PATIENCE, || {
            yurt_tunnel::approve_pending(&self.cluster)?;
            let sessions = self.status()?.sessions;
            let has_one = |node: &&str| sessions.iter().any(|one| one.node.as_str() == *node);
            Ok(nodes.iter().all(has_one).then_some(()))
        })
        .unwrap();
    }

    pub(super) fn culvert_carries_what_is_new(&self) {
        let carried = || -> Result<u64> {
            let sessions = self.status()?.sessions;
            Ok(sessions.iter().map(|one| one.bytes_to_client).sum())
        };
        let before = carried().unwrap();
        wait_until("Culvert carries what is dialled", PATIENCE, || {
            Ok((carried()? > before + 1000).then_some(()))
        })
        .unwrap();
    }

    pub(super) fn logs_work(&self) {
        for pod in ["on-1", "on-2"] {
            wait_until(&format!("logs of {pod}"), PATIENCE, || {
                let words = ["logs", "--tail=1", "--request-timeout=5s", pod];
                Ok(self.cluster.kubectl(words)?.contains("tick").then_some(()))
            })
            .unwrap();
        }
    }

    /// The rules of table `nat` on the control plane that are Yurt-Tunnel's.
    pub(super) fn rules(&self) -> usize {
        let mut save = self.cluster.lab().control().command("iptables-save");
        let saved = command::output_of(save.args(["-t", "nat"]), "").unwrap();
        saved.matches("TUNNEL-PORT").count()
    }

    /// Hangs Yurt-Tunnel's server, so that it cannot remove its rules, and deletes it as the manual does: after its 30
    /// seconds it is killed.
    pub(super) fn crash_their_server(&self) {
        let control = self.cluster.control_plane();
        for server in processes(control, THEIRS) {
            kill_process(Pid::from_raw(server).unwrap(), Signal::STOP).unwrap();
        }
        self.run("3. Yurt-Tunnel's server goes", 0);
        self.pods_are_gone(&format!("k8s-app={}", yurt_tunnel::SERVER));
        assert!(processes(control, THEIRS).is_empty());
    }

    pub(super) fn their_agents_are_gone(&self) {
        self.pods_are_gone(&format!("k8s-app={}", yurt_tunnel::AGENT));
    }

    fn pods_are_gone(&self, label: &str) {
        let wait = "-n kube-system wait --for=delete pod --timeout=50s -l";
        let words = wait.split(' ').chain([label]);
        self.cluster.kubectl(words).unwrap();
    }
}
