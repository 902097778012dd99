//! Requests for certificates that nobody may have: refused with the reason, by the API server or by the leading server.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use culvert_tests::cluster::{Cluster, wait_until};
use culvert_tests::command;
use serde_json::{Value, json};

use crate::stage::culvert;

/// An address that is not the node's may become its own within a minute: so long the approver waits.
const JUDGED: Duration = Duration::from_mins(2);

const AGENT: &str = "/O=openyurt:yurttunnel/CN=tunnel-agent-client";
const SERVER: &str = "/O=system:nodes/CN=system:node:tunnel-server";
const AGENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const SERVER_SIGNER: &str = "kubernetes.io/kubelet-serving";
const USAGES: [&str; 3] = ["client auth", "digital signature", "key encipherment"];
const SERVER_USAGES: [&str; 3] = ["server auth", "digital signature", "key encipherment"];

/// A request, made as a certain user; gone with the test.
struct Request<'a> {
    cluster: &'a Cluster,
    name: String,
    refused: Option<String>,
}

struct Asked<'a> {
    subject: &'a str,
    extensions: Vec<String>,
    signer: &'a str,
    usages: Vec<&'a str>,
    user: &'a str,
}

/// What `edge-1` may ask for.
fn right(cluster: &Cluster) -> Asked<'static> {
    Asked {
        subject: AGENT,
        extensions: vec![names("edge-1", &[cluster.edge(0).addresses()[0]], "")],
        signer: AGENT_SIGNER,
        usages: USAGES.to_vec(),
        user: "system:node:edge-1",
    }
}

fn names(dns: &str, ips: &[IpAddr], more: &str) -> String {
    let ips = ips.iter().map(|ip| format!(",IP:{ip}"));
    let ips: Vec<_> = ips.collect();
    format!("subjectAltName=DNS:{dns}{}{more}", ips.concat())
}

impl<'a> Request<'a> {
    fn make(cluster: &'a Cluster, name: &str, asked: &Asked<'_>) -> Self {
        let mut openssl = Command::new("openssl");
        openssl.args([
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ]);
        openssl.args(["-nodes", "-keyout", "/dev/null", "-subj", asked.subject]);
        for extension in &asked.extensions {
            openssl.args(["-addext", extension]);
        }
        let pem = command::output_of(&mut openssl, "").unwrap();
        let mut base64 = Command::new("openssl");
        let request = command::output_of(base64.args(["base64", "-A"]), &pem).unwrap();
        let name = format!("forged-{name}");
        let object = json!({
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": { "name": name },
            "spec": { "request": request.trim(), "signerName": asked.signer, "usages": asked.usages },
        });
        let file = cluster.directory().root().join(format!("{name}.json"));
        std::fs::write(&file, object.to_string()).unwrap();
        let (user, file) = (format!("--as={}", asked.user), file.to_str().unwrap());
        let group = "--as-group=system:nodes";
        // For those who may not ask at all.
        let admin = "--as-group=system:masters";
        let made = cluster.kubectl(["create", "-f", file, &user, group, admin]);
        Self {
            cluster,
            name,
            refused: made.err().map(|error| format!("{error:#}")),
        }
    }

    /// The type and message of its first condition, if it has one.
    fn condition(&self) -> Option<(String, String)> {
        let csr = self.cluster.get(&format!("csr {}", self.name)).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let condition = csr["status"]["conditions"].as_array()?.first()?;
        Some((text(&condition["type"]), text(&condition["message"])))
    }

    fn judged(&self) -> (String, String) {
        if let Some(refused) = &self.refused {
            return ("Refused".to_owned(), refused.clone());
        }
        wait_until("a decision", JUDGED, || Ok(self.condition())).unwrap()
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        let words = ["delete", "csr", "--ignore-not-found", &self.name];
        // Who looks for the cause of a failure finds the request, should this fail too.
        let _ = self.cluster.kubectl(words);
    }
}

#[test]
fn only_what_is_right_in_every_point_is_approved() {
    let cluster = culvert();
    let [own, other] = [0, 1].map(|edge| cluster.edge(edge).addresses()[0]);
    let right = || right(cluster);
    let named = |dns: &str, ips: &[IpAddr], more: &str| Asked {
        extensions: vec![names(dns, ips, more)],
        ..right()
    };
    let of_subject = |subject| Asked { subject, ..right() };
    let with_usage = [&USAGES[..], &["server auth"]].concat();
    let server = || Asked {
        subject: SERVER,
        signer: SERVER_SIGNER,
        usages: SERVER_USAGES.to_vec(),
        extensions: vec![names("x-tunnel-server-svc", &[], "")],
        ..right()
    };
    let ca = "basicConstraints=CA:TRUE".to_owned();
    let extensions = right().extensions.into_iter().chain([ca]).collect();
    let forged = [
        (
            "other-node",
            named("edge-2", &[other], ""),
            "may not ask for the certificate of node edge-2",
        ),
        (
            "second-name",
            named("edge-1", &[own], ",DNS:edge-2"),
            "exactly one node",
        ),
        (
            "other-address",
            named("edge-1", &[own, other], ""),
            "does not have these addresses",
        ),
        (
            "uri",
            named("edge-1", &[own], ",URI:spiffe://a/b"),
            "neither host names nor addresses",
        ),
        (
            "usages",
            Asked {
                usages: with_usage,
                ..right()
            },
            "usages must be exactly",
        ),
        (
            "requester",
            Asked {
                user: "alice",
                ..right()
            },
            "alice may not ask",
        ),
        (
            "masters",
            of_subject("/O=system:masters/CN=tunnel-agent-client"),
            "system:masters",
        ),
        (
            "group",
            of_subject("/O=openyurt:yurttunnel/O=a/CN=tunnel-agent-client"),
            "subject must be exactly",
        ),
        (
            "ca",
            Asked {
                extensions,
                ..right()
            },
            "more than names",
        ),
        (
            "server",
            Asked {
                user: "alice",
                ..server()
            },
            "only the server itself",
        ),
        ("server-of-node", server(), "can only create a node CSR"),
    ];
    let made = forged.map(|(name, asked, reason)| (Request::make(cluster, name, &asked), reason));
    for (request, reason) in &made {
        let (verdict, message) = request.judged();
        let name = &request.name;
        assert_ne!(verdict, "Approved", "{name}");
        assert!(message.contains(reason), "{name}: {verdict}: {message}");
    }
    let request = Request::make(cluster, "not", &right());
    assert_eq!(request.judged().0, "Approved");
}

#[test]
fn what_somebody_else_decides_is_left_alone() {
    let cluster = culvert();
    let proxy = Asked {
        subject: "/O=openyurt:yurttunnel/CN=tunnel-proxy-client",
        ..right(cluster)
    };
    let elses = Request::make(cluster, "elses", &proxy);
    // Once a later one is decided, this one was passed over.
    let later = Request::make(cluster, "later", &right(cluster));
    assert_eq!(later.judged().0, "Approved");
    assert_eq!(elses.condition(), None);
}
