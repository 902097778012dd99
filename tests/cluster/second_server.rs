//! Two servers behind one address, as behind a load balancer: every agent has a session with each, and nobody was
//! restarted for it. The second one runs on the control plane's machine as if that were another: ports, programs and
//! captured processes are its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use culvert_tests::cluster::{CULVERT_NAMESPACE, Cluster, wait_until};
use culvert_tests::{Cgroup, Daemon, Launch, PinRoot, programs};
use tunnel_user::observability::status::StatusReport;

use crate::requests::Identity;
use crate::stage::{PATIENCE, culvert, kill, metric};
use crate::tidying::tidied;

const BALANCED: &str = "10.77.0.1:10500";
const ANNOTATION: &str = "x-tunnel-server-external-addr";

/// Sends agents to either server in turn, and tells them of it by the Service's annotation.
struct Balancer<'a>(&'a Cluster);

/// Another server on the control plane's machine, as if that were another.
pub(crate) struct Second<'a> {
    cluster: &'a Cluster,
    name: &'static str,
    kubeconfig: PathBuf,
    cgroup: Cgroup,
    pins: PinRoot,
}

impl<'a> Balancer<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let rules = "table ip balancer {
            chain balance {
                type nat hook prerouting priority -150;
                tcp dport 10500 dnat to 10.77.0.1 : numgen inc mod 2 map { 0 : 10262, 1 : 10362 }
            }
        }";
        cluster.lab().control().nft(rules).unwrap();
        annotate(cluster, &format!("{ANNOTATION}={BALANCED}")).unwrap();
        Self(cluster)
    }
}

impl Drop for Balancer<'_> {
    fn drop(&mut self) {
        let control = self.0.lab().control();
        let annotated = annotate(self.0, &format!("{ANNOTATION}-"));
        let balanced = control.nft("delete table ip balancer");
        tidied("the balancer stays", annotated.and(balanced));
    }
}

fn annotate(cluster: &Cluster, annotation: &str) -> Result<()> {
    let service = "annotate --overwrite service x-tunnel-server-svc -n";
    let words = service.split(' ').chain([CULVERT_NAMESPACE, annotation]);
    cluster.kubectl(words).map(drop)
}

impl<'a> Second<'a> {
    /// It has the servers' service account.
    fn new(cluster: &'a Cluster) -> Self {
        let server =
            Identity::service_account(cluster, (CULVERT_NAMESPACE, "culvert-server"), None);
        Self::named(cluster, "second", server.kubeconfig())
    }

    /// It is who that kubeconfig says.
    pub(crate) fn named(cluster: &'a Cluster, name: &'static str, kubeconfig: &Path) -> Self {
        let this = Self {
            cluster,
            name,
            kubeconfig: kubeconfig.to_owned(),
            cgroup: Cgroup::new(name).unwrap(),
            pins: PinRoot::new().unwrap(),
        };
        fs::create_dir_all(this.path("")).unwrap();
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.cluster.directory().root().join(self.name).join(name)
    }

    fn launch(&self, program: PathBuf) -> Launch {
        Launch::new(self.cluster.lab().control(), program).cgroup(&self.cgroup)
    }

    fn start(&self) -> Daemon {
        self.start_as("--node-name second")
    }

    /// Its slots stand for nodes beside those of the server of the same network.
    pub(crate) fn start_as(&self, flags: &str) -> Daemon {
        let server = self
            .launch(programs::culvert().unwrap())
            .words("server --kubernetes --redirect-address 10.77.0.1")
            .words("--host-range 127.66.0.0/15 --pod-ranges none")
            .words(flags)
            .words("--lease-namespace culvert")
            .words("--agent-port 10362 --redirect-port 10370 --meta-port 10365")
            .words("--https-port 10363 --http-port 10364")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--state-dir")
            .arg(self.path("state"))
            .arg("--run-dir")
            .arg(self.path("run"))
            .arg("--cgroup")
            .arg(self.cgroup.path())
            .arg("--pin-root")
            .arg(self.pins.path());
        let mut server = server.start().unwrap();
        server.wait_for_line("redirecting", PATIENCE).unwrap();
        server
    }

    pub(crate) fn status(&self) -> Result<StatusReport> {
        let status = Launch::offline(programs::culvert()?)
            .words("status --json --run-dir")
            .arg(self.path("run"));
        Ok(serde_json::from_str(&status.start()?.succeed(PATIENCE)?)?)
    }

    /// What a kubelet answers to somebody without a name, from where this server captures.
    pub(crate) fn asks_a_kubelet(&self) -> String {
        let kubelet = "-sk -o /dev/null -w %{http_code} https://10.78.0.11:10250/pods";
        let curl = self.launch("curl".into()).words(kubelet);
        let mut curl = curl.start().unwrap();
        let _ = curl.wait(PATIENCE).unwrap();
        curl.output().trim().to_owned()
    }

    fn until_it_has_both_agents(&self) {
        wait_until("both agents come to the second server", PATIENCE, || {
            Ok((sessions(&self.status()?).len() == 2).then_some(()))
        })
        .unwrap();
    }
}

/// Who has a session, and since when.
fn sessions(status: &StatusReport) -> BTreeMap<String, i64> {
    let sessions = status.sessions.iter();
    let since = |at: time::OffsetDateTime| at.unix_timestamp();
    sessions
        .map(|one| (one.node.to_string(), since(one.connected_at)))
        .collect()
}

/// Waits until each agent knows of so many servers, and has a session with each.
fn until_agents_count(cluster: &Cluster, servers: usize) {
    for edge in [cluster.edge(0), cluster.edge(1)] {
        let curl = edge
            .launch("curl")
            .words("-sSf http://127.0.0.1:10266/metrics");
        wait_until("the agent counts servers", PATIENCE, || {
            let metrics = curl.start()?.succeed(PATIENCE)?;
            let says = |name: &str| metrics.contains(&format!("culvert_agent_{name} {servers}\n"));
            Ok((says("servers") && says("sessions")).then_some(()))
        })
        .unwrap();
    }
}

#[test]
fn agents_find_every_server_behind_one_address_and_notice_when_one_goes_or_comes() {
    let cluster = culvert();
    let first = || serde_json::from_value(cluster.culvert_status().unwrap()).unwrap();
    until_agents_count(cluster, 1);
    let before = sessions(&first());
    let second = Second::new(cluster);
    let mut server = second.start();
    let _balancer = Balancer::new(cluster);
    second.until_it_has_both_agents();
    until_agents_count(cluster, 2);
    assert_eq!(second.asks_a_kubelet(), "401");
    // Nobody who had a session was asked for another one.
    assert_eq!(sessions(&first()), before);

    assert!(server.stop(PATIENCE).unwrap().success());
    until_agents_count(cluster, 1);
    let mut server = second.start();
    second.until_it_has_both_agents();
    until_agents_count(cluster, 2);
    // One that is killed cannot say so.
    server.kill().unwrap();
    until_agents_count(cluster, 1);
    assert_eq!(sessions(&first()), before);
}

/// How many connections the control plane's own server has relayed, at that side.
pub(crate) fn relayed(side: &str) -> u64 {
    metric(&format!(
        "culvert_server_relayed_connections_total{{side=\"{side}\"}}"
    ))
}

#[test]
fn a_server_that_no_agent_knows_has_its_clients_carried_by_one_that_they_know() {
    let cluster = culvert();
    until_agents_count(cluster, 1);
    let before = relayed("answered");
    let second = Second::new(cluster);
    let mut server = second.start();
    // It has to get the certificate by which the other server knows it.
    wait_until(
        "a kubelet answers through the other server",
        PATIENCE,
        || Ok((second.asks_a_kubelet() == "401").then_some(())),
    )
    .unwrap();
    assert_eq!(second.status().unwrap().sessions.len(), 0);
    let answered = relayed("answered");
    assert!(answered > before, "{before} then {answered}");
    assert_eq!(relayed("asked"), 0, "its own sessions are nearer");
    for _ in 0..20 {
        assert_eq!(second.asks_a_kubelet(), "401");
    }
    assert_eq!(relayed("answered"), answered + 20);

    // The one that takes its place has another id.
    kill(cluster.control_plane(), "culvert");
    wait_until(
        "a kubelet answers through the next server",
        PATIENCE,
        || Ok((second.asks_a_kubelet() == "401").then_some(())),
    )
    .unwrap();
    assert!(server.stop(PATIENCE).unwrap().success());
    until_agents_count(cluster, 1);
}
