//! Another server on the control plane's machine, as if that were another machine: ports, programs and captured
//! processes are its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tunnel_user::observability::status::StatusReport;

use super::{CULVERT_NAMESPACE, Cluster};
use crate::{Cgroup, Daemon, Launch, PinRoot, programs};

const PATIENCE: Duration = Duration::from_secs(30);

/// A server besides that of the manifests.
#[derive(Debug)]
pub struct AnotherServer<'a> {
    cluster: &'a Cluster,
    name: &'static str,
    kubeconfig: PathBuf,
    cgroup: Cgroup,
    pins: PinRoot,
}

impl<'a> AnotherServer<'a> {
    /// It has the servers' service account.
    pub fn new(cluster: &'a Cluster) -> Result<Self> {
        let account = (CULVERT_NAMESPACE, "culvert-server");
        let kubeconfig = cluster.service_account_kubeconfig(account, None)?;
        Self::named(cluster, "second", &kubeconfig)
    }

    /// It is who that kubeconfig says.
    pub fn named(cluster: &'a Cluster, name: &'static str, kubeconfig: &Path) -> Result<Self> {
        let this = Self {
            cluster,
            name,
            kubeconfig: kubeconfig.to_owned(),
            cgroup: Cgroup::new(name)?,
            pins: PinRoot::new()?,
        };
        fs::create_dir_all(this.path("")).context("make the directory of a server")?;
        Ok(this)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.cluster.directory().root().join(self.name).join(name)
    }

    /// A program whose connects this server captures.
    pub fn launch(&self, program: impl AsRef<Path>) -> Launch {
        Launch::new(self.cluster.lab().control(), program).cgroup(&self.cgroup)
    }

    /// Starts it; it redirects when this returns.
    pub fn start(&self) -> Result<Daemon> {
        self.start_as("--node-name second")
    }

    /// The same with other flags. Its slots stand for nodes beside those of the server of the same network.
    pub fn start_as(&self, flags: &str) -> Result<Daemon> {
        let server = self
            .launch(programs::culvert()?)
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
        let mut server = server.start()?;
        server.wait_for_line("redirecting", PATIENCE)?;
        Ok(server)
    }

    /// What `culvert status` says of it.
    pub fn status(&self) -> Result<StatusReport> {
        let status = Launch::offline(programs::culvert()?)
            .words("status --json --run-dir")
            .arg(self.path("run"));
        Ok(serde_json::from_str(&status.start()?.succeed(PATIENCE)?)?)
    }

    /// What it counts.
    pub fn metrics(&self) -> Result<String> {
        let url = "--silent --show-error --fail http://127.0.0.1:10365/metrics";
        self.launch("curl").words(url).start()?.succeed(PATIENCE)
    }

    /// What a kubelet answers to somebody without a name, from where this server captures.
    pub fn asks_a_kubelet(&self) -> Result<String> {
        let kubelet = "-sk -o /dev/null -w %{http_code} https://10.78.0.11:10250/pods";
        let mut curl = self.launch("curl").words(kubelet).start()?;
        // It fails where nobody answers.
        curl.wait(PATIENCE)?;
        Ok(curl.output().trim().to_owned())
    }
}
