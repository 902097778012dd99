//! A Prometheus that scrapes kubelet and `cAdvisor` of every node by IP, on the control plane itself or in a pod there,
//! or whatever it is told to from a pod elsewhere. Debian's knows nothing of Kubernetes and is told the addresses that
//! it would else read from the Nodes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::control_plane::pki_file;
use super::observers::{list, rights};
use super::program::Program;
use super::{Cluster, Machine, archive_path, directory, pods};

pub(super) const NAME: &str = "prometheus";
pub(super) const USER: &str = "prometheus";
/// Debian's in an image.
const IMAGE: &str = "culvert.dev/prometheus:1";
const PORT: u16 = 9090;

/// Where the one on the control plane answers.
pub const PROMETHEUS_URL: &str = "http://127.0.0.1:9090";

/// What is scraped under one name.
#[derive(Debug, Clone)]
pub struct Job {
    name: String,
    scheme: &'static str,
    path: &'static str,
    targets: Vec<Value>,
}

impl Job {
    /// `targets` are nodes, and what is dialled of each.
    pub fn new<'a>(
        name: &str,
        (scheme, path): (&'static str, &'static str),
        targets: impl IntoIterator<Item = (&'a str, String)>,
    ) -> Self {
        let target = |(node, target): (&str, String)| json!({ "targets": [target], "labels": { "node": node } });
        Self {
            name: name.to_owned(),
            scheme,
            path,
            targets: targets.into_iter().map(target).collect(),
        }
    }

    fn config(&self, cluster: &Cluster) -> Value {
        let directory = cluster.directory();
        let config = directory.kubeconfig(NAME);
        json!({
            "job_name": self.name,
            "scheme": self.scheme,
            "metrics_path": self.path,
            "static_configs": self.targets,
            "tls_config": {
                "ca_file": pki_file(directory, "ca.crt"),
                "cert_file": config.with_extension("crt"),
                "key_file": config.with_extension("key"),
            },
        })
    }
}

impl Cluster {
    /// Starts one on the control plane; [`Cluster::stop`] ends it.
    pub fn start_prometheus(&self) -> Result<()> {
        let machine = self.control_plane();
        let config = self.configure_prometheus(machine, &self.kubelet_jobs())?;
        let program = Program::on(machine, NAME, PathBuf::from(NAME))
            .flag("config.file", config.display())
            .flag("storage.tsdb.path", home(machine).join("data").display())
            .flag("web.listen-address", format_args!("127.0.0.1:{PORT}"));
        self.start(&program)
    }

    /// Starts one in a pod of that name on the control plane, with a network of its own; it answers at the pod's
    /// address.
    pub fn start_prometheus_pod(&self, name: &str) -> Result<()> {
        self.start_prometheus_for(name, self.control_plane(), None, &self.kubelet_jobs())
    }

    /// Starts one in a pod of any machine, with those jobs; it asks that `dns` for names.
    pub fn start_prometheus_for(
        &self,
        name: &str,
        machine: &Machine,
        dns: Option<&str>,
        jobs: &[Job],
    ) -> Result<()> {
        self.import(machine, &archive_path("prometheus.tar")?)?;
        let config = self.configure_prometheus(machine, jobs)?;
        let mut pod = pod(name, machine, self.directory().root(), &config);
        pods::ask(&mut pod, dns);
        self.apply(name, &pod)
    }

    fn kubelet_jobs(&self) -> [Job; 2] {
        let job = |name: &str, path| {
            let machines = self.machines().iter();
            let targets = machines.map(|machine| {
                let target = format!("{}:10250", machine.addresses()[0]);
                (machine.name(), target)
            });
            Job::new(name, ("https", path), targets)
        };
        [
            job("kubelet", "/metrics"),
            job("cadvisor", "/metrics/cadvisor"),
        ]
    }

    /// Asks the one that answers at `url`: by node, whether its last scrape of `job` went well.
    pub fn scraped(&self, url: &str, job: &str) -> Result<BTreeMap<String, bool>> {
        let results = self.ask_prometheus(url, &format!("up{{job=\"{job}\"}}"))?;
        let one = |result: &Value| {
            let node = result["metric"]["node"].as_str()?.to_owned();
            Some((node, result["value"][1] == "1"))
        };
        Ok(results.iter().filter_map(one).collect())
    }

    /// What the one that answers at `url` finds by an expression.
    pub fn ask_prometheus(&self, url: &str, expression: &str) -> Result<Vec<Value>> {
        let curl = self.control_plane().launch("curl");
        let mut curl = curl
            .words("--silent --show-error --fail --get --data-urlencode")
            .arg(format!("query={expression}"))
            .arg(format!("{url}/api/v1/query"))
            .start()?;
        let said = curl.succeed(Duration::from_secs(10))?;
        let mut answer: Value =
            serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))?;
        let results = answer["data"]["result"].take();
        serde_json::from_value(results).with_context(|| format!("no results: {said}"))
    }

    /// Writes the configuration and gives the user its right.
    fn configure_prometheus(&self, machine: &Machine, jobs: &[Job]) -> Result<PathBuf> {
        let rules =
            json!([{ "apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"] }]);
        self.apply("prometheus-rights", &list(&rights(NAME, USER, &rules)))?;
        let home = home(machine);
        directory::make(&home)?;
        let config = home.join("prometheus.json");
        let jobs: Vec<_> = jobs.iter().map(|job| job.config(self)).collect();
        let all = json!({
            "global": { "scrape_interval": "5s", "scrape_timeout": "4s" },
            "scrape_configs": jobs,
        });
        directory::write_json(&config, &all)?;
        Ok(config)
    }
}

fn home(machine: &Machine) -> PathBuf {
    machine.directory().join(NAME)
}

/// Its files are where they are outside of it, so that one in a pod and one without read the same configuration.
fn pod(name: &str, machine: &Machine, files: &Path, config: &Path) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": {
            "nodeName": machine.name(),
            "tolerations": [{ "operator": "Exists" }],
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main",
                "image": IMAGE,
                "args": [
                    format!("--config.file={}", config.display()),
                    "--storage.tsdb.path=/data",
                    format!("--web.listen-address=0.0.0.0:{PORT}"),
                ],
                "volumeMounts": [
                    { "name": "files", "mountPath": files, "readOnly": true },
                    { "name": "data", "mountPath": "/data" },
                ],
            }],
            "volumes": [
                { "name": "files", "hostPath": { "path": files, "type": "Directory" } },
                { "name": "data", "emptyDir": {} },
            ],
        },
    })
}
