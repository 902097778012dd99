//! Who has a copy of an agent's key is out for good once the Node was created anew, or an operator says so; the agent
//! itself is back by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use culvert_tests::cluster::{CULVERT_NAMESPACE, Cluster, wait_until};
use culvert_tests::{Daemon, programs, until};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair,
};
use rustix::process::Signal;
use serde_json::json;

use crate::objects::{EDGE_LABEL, Ghost, events};
use crate::requests::Identity;
use crate::stage::{PATIENCE, culvert};

const NODE: &str = "relieved";
const ADDRESS: &str = "10.78.0.88";
/// How long a revocation may take, as the manual says.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Certificates and Nodes carry whole seconds: what is of one second cannot be told apart.
const NEXT_SECOND: Duration = Duration::from_millis(1100);

/// Agents of a Node that no kubelet stands behind, on the second edge.
struct Scene {
    cluster: &'static Cluster,
    root: tempfile::TempDir,
}

impl Scene {
    fn new(cluster: &'static Cluster) -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { cluster, root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// An agent that asks the API server as whom the kubeconfig says.
    fn agent(&self, name: &str, meta_port: u16, kubeconfig: &Path) -> Daemon {
        let home = self.path(name);
        let agent = self.cluster.edge(1).launch(programs::culvert().unwrap());
        let agent = agent
            .words("agent --kubernetes --server 10.77.0.1:31008 --node-name")
            .args([
                NODE,
                "--node-ip",
                ADDRESS,
                "--meta-port",
                &meta_port.to_string(),
            ])
            .arg("--kubeconfig")
            .arg(kubeconfig);
        let agent = agent
            .arg("--state-dir")
            .arg(home.join("state"))
            .arg("--run-dir")
            .arg(home.join("run"));
        agent.start().unwrap()
    }

    /// Copies what an agent has on its disk.
    fn steal(&self, from: &str, to: &str) {
        let store = |of: &str| self.path(of).join("state/pki");
        fs::create_dir_all(store(to)).unwrap();
        fs::copy(store(from).join("agent.pem"), store(to).join("agent.pem")).unwrap();
    }

    /// How many sessions the node has.
    fn sessions(&self) -> usize {
        let status = self.cluster.culvert_status().unwrap();
        let sessions = status["sessions"].as_array().into_iter().flatten();
        sessions.filter(|session| session["node"] == NODE).count()
    }
}

/// The kubelet's identity of that node: who has it may ask for the certificate of its agent.
fn kubelet(scene: &Scene) -> PathBuf {
    let pki = scene.cluster.directory().pki();
    let read = |name: &str| fs::read_to_string(pki.join(name)).unwrap();
    let key = KeyPair::from_pem(&read("ca.key")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("ca.crt"), key).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in [
        (DnType::CommonName, format!("system:node:{NODE}")),
        (DnType::OrganizationName, "system:nodes".to_owned()),
    ] {
        params.distinguished_name.push(kind, value);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    fs::write(scene.path("kubelet.crt"), certificate.pem()).unwrap();
    fs::write(scene.path("kubelet.key"), key.serialize_pem()).unwrap();
    fs::write(scene.path("ca.crt"), read("ca.crt")).unwrap();
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "lab", "cluster": {
            "server": "https://10.77.0.1:6443",
            "certificate-authority": "ca.crt",
        }}],
        "users": [{ "name": "kubelet", "user": {
            "client-certificate": "kubelet.crt",
            "client-key": "kubelet.key",
        }}],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "kubelet" } }],
        "current-context": "lab",
    });
    let file = scene.path("kubelet.json");
    fs::write(&file, config.to_string()).unwrap();
    file
}

fn ghost(cluster: &'static Cluster) -> Ghost {
    let ghost = Ghost::new(cluster, NODE, ADDRESS);
    ghost.label(EDGE_LABEL);
    ghost
}

fn annotate(cluster: &Cluster, value: &str) {
    let annotation = format!("culvert.dev/not-before={value}");
    let words = ["annotate", "node", NODE, "--overwrite", &annotation];
    cluster.kubectl(words).unwrap();
}

fn now() -> String {
    let format = time::format_description::well_known::Rfc3339;
    let now = time::OffsetDateTime::now_utc();
    now.replace_nanosecond(0).unwrap().format(&format).unwrap()
}

#[test]
fn a_stolen_certificate_is_worth_nothing_once_the_node_is_another_or_an_operator_says_so() {
    let cluster = culvert();
    let scene = Scene::new(cluster);
    let kubeconfig = kubelet(&scene);
    // A thief has no identity with which to ask for more.
    let nobody = Identity::service_account(cluster, (CULVERT_NAMESPACE, "default"), None);
    let node = ghost(cluster);
    let mut honest = scene.agent("honest", 10271, &kubeconfig);
    honest
        .wait_for_line("session established", PATIENCE)
        .unwrap();
    scene.steal("honest", "thief");

    // The Node is deleted, which ends the session, and there is another one of that name.
    drop(node);
    until("the session ends", AT_ONCE, || {
        Ok((scene.sessions() == 0).then_some(()))
    })
    .unwrap();
    std::thread::sleep(NEXT_SECOND);
    honest.forget_output();
    let _node = ghost(cluster);
    honest
        .wait_for_line("the certificate is refused", PATIENCE)
        .unwrap();
    honest
        .wait_for_line("session established", PATIENCE)
        .unwrap();
    let mut thief = scene.agent("thief", 10272, nobody.kubeconfig());
    let line = thief.wait_for_line("no session", PATIENCE).unwrap();
    assert!(
        line.contains("was issued at") && line.contains(NODE),
        "{line}"
    );
    assert_eq!(scene.sessions(), 1, "the honest one's");
    thief.kill().unwrap();

    // The one that counts is stolen as well, and an operator hears of it. Of two agents with one certificate each takes
    // the node over from the other, again and again: this is about the thief's session, so the honest one is held.
    scene.steal("honest", "second-thief");
    honest.signal(Signal::STOP).unwrap();
    let mut thief = scene.agent("second-thief", 10272, nobody.kubeconfig());
    thief
        .wait_for_line("session established", PATIENCE)
        .unwrap();
    std::thread::sleep(NEXT_SECOND);
    thief.forget_output();
    honest.forget_output();
    annotate(cluster, &now());
    thief.wait_for_line("session ended", AT_ONCE).unwrap();
    honest.signal(Signal::CONT).unwrap();
    let line = thief.wait_for_line("no session", PATIENCE).unwrap();
    assert!(line.contains("culvert.dev/not-before"), "{line}");
    honest
        .wait_for_line("session established", PATIENCE)
        .unwrap();
    assert_eq!(scene.sessions(), 1, "the honest one's");

    // Nobody is let in while it is not known who is meant.
    annotate(cluster, "yesterday");
    until("the session ends", AT_ONCE, || {
        Ok((scene.sessions() == 0).then_some(()))
    })
    .unwrap();
    wait_until("an Event tells", PATIENCE, || {
        let told = events(cluster, "Node", NODE, "InvalidNotBefore")?;
        Ok((!told.is_empty()).then_some(()))
    })
    .unwrap();
}

#[test]
fn credentials_that_are_corrected_while_an_agent_runs_are_used() {
    let cluster = culvert();
    let scene = Scene::new(cluster);
    let _node = ghost(cluster);
    let kubeconfig = kubelet(&scene);
    let ca = fs::read(scene.path("ca.crt")).unwrap();
    let of_others = rcgen::generate_simple_self_signed(["other".to_owned()]).unwrap();
    fs::write(scene.path("ca.crt"), of_others.cert.pem()).unwrap();
    let mut agent = scene.agent("corrected", 10271, &kubeconfig);
    agent.wait_for_line("no certificate", PATIENCE).unwrap();

    fs::write(scene.path("ca.crt"), ca).unwrap();
    agent
        .wait_for_line("took the changed credentials", PATIENCE)
        .unwrap();
    agent
        .wait_for_line("session established", PATIENCE)
        .unwrap();
}
