//! Another server on the control plane's machine, as if that were another machine: ports, programs and captured
//! processes are its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use culvert_tests::cluster::{CULVERT_NAMESPACE, Cluster};
use culvert_tests::{Cgroup, Daemon, Launch, PinRoot, programs};
use tunnel_user::observability::status::StatusReport;

use crate::requests::Identity;
use crate::stage::{PATIENCE, metric};

/// A server besides that of the manifests.
pub(crate) struct AnotherServer<'a> {
    cluster: &'a Cluster,
    name: &'static str,
    kubeconfig: PathBuf,
    cgroup: Cgroup,
    pins: PinRoot,
}

impl<'a> AnotherServer<'a> {
    /// It has the servers' service account.
    pub(crate) fn new(cluster: &'a Cluster) -> Self {
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

    pub(crate) fn start(&self) -> Daemon {
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

    /// What it counts.
    pub(crate) fn metrics(&self) -> Result<String> {
        let url = "--silent --show-error --fail http://127.0.0.1:10365/metrics";
        self.launch("curl".into())
            .words(url)
            .start()?
            .succeed(PATIENCE)
    }

    /// What a kubelet answers to somebody without a name, from where this server captures.
    pub(crate) fn asks_a_kubelet(&self) -> String {
        let kubelet = "-sk -o /dev/null -w %{http_code} https://10.78.0.11:10250/pods";
        let curl = self.launch("curl".into()).words(kubelet);
        let mut curl = curl.start().unwrap();
        let _ = curl.wait(PATIENCE).unwrap();
        curl.output().trim().to_owned()
    }
}

/// How many connections the control plane's own server has relayed, at that side.
pub(crate) fn relayed(side: &str) -> u64 {
    metric(&format!(
        "culvert_server_relayed_connections_total{{side=\"{side}\"}}"
    ))
}
