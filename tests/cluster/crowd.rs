//! Nodes by the hundred that no machine stands behind, and what they ask all at once.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use culvert_tests::cluster::{Cluster, wait_until};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::requests::{Request, Requests};
use crate::stage::{PATIENCE, metric};

const LABEL: &str = "culvert.test/crowd";
const REQUESTS: &str =
    "https://10.77.0.1:6443/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// The Nodes, gone with their guard. As long as it lives no `DaemonSet` is looked after: each Node would get a pod.
pub(crate) struct Crowd {
    cluster: &'static Cluster,
    size: u8,
    entries_before: u64,
}

impl Crowd {
    /// Makes them, and waits until the server knows each.
    pub(crate) fn new(cluster: &'static Cluster, size: u8) -> Self {
        let controllers = [("controllers", "*,-daemonset-controller")];
        cluster.restart_controllers(&controllers).unwrap();
        let crowd = Self {
            cluster,
            size,
            entries_before: entries(),
        };
        let nodes: Vec<_> = (1..=size).map(node).collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": nodes });
        let file = crowd.write("crowd.json", &list.to_string());
        let create = ["create", "--validate=false", "-f", file.to_str().unwrap()];
        cluster.kubectl(create).unwrap();
        wait_for_entries(crowd.entries_before + u64::from(size));
        crowd
    }

    /// Each asks once for its agent's certificate, as its kubelet and under its own name.
    pub(crate) fn ask(&self, requests: &Requests<'_>) {
        let key = KeyPair::generate().unwrap();
        let transfers = (1..=self.size).map(|number| {
            let name = name(number);
            let request = Request::agent_of(&name, &name, &[address(number)]);
            self.transfer(&name, &requests.object(&request, &key))
        });
        let transfers: String = transfers.collect();
        let file = self.write("crowd.curl", &transfers);
        let curl = self.cluster.control_plane().launch("curl");
        let curl = curl
            .words("--parallel --parallel-max 200 --config")
            .arg(file);
        curl.start().unwrap().succeed(PATIENCE).unwrap();
    }

    /// A part of curl's configuration: the administrator may say in whose name he asks.
    fn transfer(&self, node: &str, request: &Value) -> String {
        let directory = self.cluster.directory();
        let admin = directory.kubeconfig("admin");
        let (certificate, key) = (admin.with_extension("crt"), admin.with_extension("key"));
        // What curl wants to be escaped in a string is what JSON wants, and so it is written.
        let body = Value::from(request.to_string());
        format!(
            "next\nsilent\nshow-error\nfail\noutput = /dev/null\nurl = {REQUESTS}\n\
             cacert = {}\ncert = {}\nkey = {}\ndata = {body}\n\
             header = \"Content-Type: application/json\"\n\
             header = \"Impersonate-User: system:node:{node}\"\n\
             header = \"Impersonate-Group: system:nodes\"\n\
             header = \"Impersonate-Group: system:authenticated\"\n",
            directory.pki().join("ca.crt").display(),
            certificate.display(),
            key.display(),
        )
    }

    /// Removes them, and waits until the server has forgotten each.
    pub(crate) fn leave(self) {
        let wanted = self.entries_before;
        drop(self);
        wait_for_entries(wanted);
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.cluster.directory().root().join(name);
        fs::write(&file, text).unwrap();
        file
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // They are gone at once; kubectl would look for five of them in a second.
        let delete = ["delete", "nodes", "-l", LABEL, "--wait=false"];
        let gone = self.cluster.kubectl(delete);
        let restarted = self.cluster.restart_controllers(&[]);
        if let Err(error) = gone.and(restarted) {
            eprintln!("the crowd stays: {error:#}");
        }
    }
}

fn node(number: u8) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name(number),
            "labels": { LABEL: "", "openyurt.io/is-edge-worker": "true" },
        },
        "status": { "addresses": [{ "type": "InternalIP", "address": address(number) }] },
    })
}

fn name(number: u8) -> String {
    format!("crowd-{number:03}")
}

fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(10, 78, 9, number).into()
}

/// How many addresses the server captures.
fn entries() -> u64 {
    metric("culvert_server_redirect_entries")
}

fn wait_for_entries(wanted: u64) {
    wait_until("the server knows these nodes", PATIENCE, || {
        Ok((entries() == wanted).then_some(()))
    })
    .unwrap();
}
