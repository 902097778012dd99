//! HTTPS that ends at the server, with the rights of the overlay and its flag: a user of the cluster gets of a real
//! kubelet what RBAC says, by a token or a certificate, and nothing by what looks like either.

use std::time::Duration;

use anyhow::Result;
use culvert_tests::Launch;
use culvert_tests::cluster::{CULVERT_NAMESPACE, Cluster, repository, wait_until};
use serde_json::json;

use crate::callers::{answer, as_user};
use crate::pods;
use crate::requests::{Decision, Identity, Request, Requests};
use crate::stage::{PATIENCE, culvert, server_log};
use crate::tidying::tidied;

const OVERLAY: &str = "deploy/kubernetes/overlays/https-terminate";
/// How long a decision counts, and what it takes to look.
const CACHED: Duration = Duration::from_secs(10);
const AGENTS: &str = "culvert-agent";
const ARGS: &str = "/spec/template/spec/containers/0/args";

/// What the overlay adds to the base; taken back with this.
struct Overlay<'a>(&'a Cluster);

impl<'a> Overlay<'a> {
    fn over(cluster: &'a Cluster) -> Self {
        let this = Self(cluster);
        cluster.kubectl(["apply", "-f", &rbac()]).unwrap();
        let flag =
            json!([{ "op": "add", "path": format!("{ARGS}/-"), "value": "--https-terminate" }]);
        patch(cluster, &flag.to_string()).unwrap();
        this
    }
}

impl Drop for Overlay<'_> {
    fn drop(&mut self) {
        let base = json!([{ "op": "replace", "path": ARGS, "value": ["server", "--kubernetes"] }]);
        let patched = patch(self.0, &base.to_string());
        let rights = self.0.kubectl(["delete", "-f", &rbac()]);
        tidied("the overlay stays", patched.and(rights.map(drop)));
    }
}

fn rbac() -> String {
    let file = repository().join(OVERLAY).join("rbac.yaml");
    file.to_str().unwrap().to_owned()
}

fn patch(cluster: &Cluster, patch: &str) -> Result<()> {
    let server = [
        "patch",
        "daemonset",
        "culvert-server",
        "-n",
        CULVERT_NAMESPACE,
    ];
    let words = server.into_iter().chain(["--type=json", "-p", patch]);
    cluster.kubectl(words)?;
    cluster.wait_for_culvert()
}

/// A service account that may read figures of nodes, and nothing else.
struct Monitor<'a> {
    cluster: &'a Cluster,
    token: String,
}

impl<'a> Monitor<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        for words in [
            "create serviceaccount monitor",
            "create clusterrole monitor --verb=get --resource=nodes/metrics",
            "create clusterrolebinding monitor --clusterrole=monitor --serviceaccount=default:monitor",
        ] {
            cluster.kubectl(words.split(' ')).unwrap();
        }
        let token = cluster.kubectl(["create", "token", "monitor"]).unwrap();
        Self {
            cluster,
            token: token.trim().to_owned(),
        }
    }

    fn revoke(&self) {
        let words = ["delete", "clusterrolebinding", "monitor"];
        self.cluster.kubectl(words).unwrap();
    }

    fn asks(&self, path: &str) -> String {
        asks(self.cluster, &self.token, "edge-1:10250", path)
    }
}

impl Drop for Monitor<'_> {
    fn drop(&mut self) {
        for words in [
            "delete clusterrolebinding monitor --ignore-not-found",
            "delete clusterrole monitor",
            "delete serviceaccount monitor",
        ] {
            tidied(
                "the monitor stays",
                self.cluster.kubectl(words.split(' ')).map(drop),
            );
        }
    }
}

/// A curl that dials the server's address, verifies its certificate, and says the host in its head alone.
fn curl(cluster: &Cluster, host: &str, path: &str) -> Launch {
    let ca = cluster.directory().pki().join("ca.crt");
    let curl = cluster.control_plane().launch("curl");
    curl.words(
        "--silent --show-error --http1.1 --max-time 15 --write-out status=%{http_code} --cacert",
    )
    .arg(ca)
    .arg("--header")
    .arg(format!("Host: {host}"))
    .arg(format!("https://10.77.0.1:10263{path}"))
}

fn asks(cluster: &Cluster, token: &str, host: &str, path: &str) -> String {
    let curl = curl(cluster, host, path).arg("--header");
    answer(&curl.arg(format!("Authorization: Bearer {token}")))
}

#[test]
fn users_get_of_a_kubelet_what_rbac_says_until_it_says_otherwise() {
    let cluster = culvert();
    let _overlay = Overlay::over(cluster);
    let monitor = Monitor::new(cluster);
    // The certificate for kubelets comes by itself.
    wait_until("figures", PATIENCE, || {
        Ok(monitor
            .asks("/metrics")
            .ends_with("status=200")
            .then_some(()))
    })
    .unwrap();
    assert!(
        monitor
            .asks("/metrics")
            .contains("kubelet_node_name{node=\"edge-1\"} 1")
    );
    for path in [
        "/pods",
        "/stats/summary",
        "/configz",
        "/containerLogs/default/x/main",
    ] {
        let said = monitor.asks(path);
        assert!(
            said.ends_with("status=403") && said.contains("default:monitor"),
            "{path}: {said}"
        );
    }
    by_certificate(cluster);
    by_nothing(cluster, &monitor);
    by_exec(cluster, &monitor);
    the_log_says_who_did_what(cluster);
    nobody_else_is_given_the_certificate_for_kubelets(cluster);

    monitor.revoke();
    let patience = CACHED + Duration::from_secs(3);
    wait_until("what is taken back is so", patience, || {
        Ok(monitor
            .asks("/metrics")
            .ends_with("status=403")
            .then_some(()))
    })
    .unwrap();
}

fn by_certificate(cluster: &Cluster) {
    let user = |user: &str, path: &str| {
        answer(&as_user(curl(cluster, "edge-1", path), cluster, Some(user)))
    };
    let pods = user("admin", "/pods");
    assert!(
        pods.contains("\"PodList\"") && pods.ends_with("status=200"),
        "{pods}"
    );
    for (who, named) in [
        ("kube-scheduler", "system:kube-scheduler"),
        // Of another node, and of this one: a kubelet may ask neither.
        ("kubelet-edge-2", "system:node:edge-2"),
        ("kubelet-edge-1", "system:node:edge-1"),
    ] {
        for path in ["/metrics", "/pods"] {
            let said = user(who, path);
            assert!(
                said.contains(named) && said.ends_with("status=403"),
                "{who} {path}: {said}"
            );
        }
    }
}

/// No credential, none that is good, and what is added to a good one.
fn by_nothing(cluster: &Cluster, monitor: &Monitor<'_>) {
    let nobody = answer(&curl(cluster, "edge-1", "/metrics"));
    assert!(
        nobody.contains("\"Unauthorized\"") && nobody.ends_with("status=401"),
        "{nobody}"
    );
    let forged = format!("{}x", monitor.token);
    let forged = asks(cluster, &forged, "edge-1", "/metrics");
    assert!(forged.ends_with("status=401"), "{forged}");
    let bearer = format!("Authorization: Bearer {}", monitor.token);
    let with = |header: &str, path: &str| {
        let curl = curl(cluster, "edge-1", path).arg("--header").arg(&bearer);
        answer(&curl.arg("--path-as-is").arg("--header").arg(header))
    };
    let impersonating = with("Impersonate-User: kubernetes-admin", "/pods");
    assert!(impersonating.ends_with("status=403"), "{impersonating}");
    let fronted = with("X-Remote-User: kubernetes-admin", "/pods");
    assert!(fronted.ends_with("status=403"), "{fronted}");
    let hidden = with("Accept: */*", "/metrics/../pods");
    assert!(hidden.ends_with("status=400"), "{hidden}");
    // A path of the kubelet's on another port stays there.
    let elsewhere = asks(
        cluster,
        &monitor.token,
        "edge-1:9443",
        "/exec/default/x/main",
    );
    assert!(
        elsewhere.contains("port 9443") && elsewhere.ends_with("status=403"),
        "{elsewhere}"
    );
}

/// As kubectl does it: the connection becomes one of bytes. The pod says which node is meant.
fn by_exec(cluster: &Cluster, monitor: &Monitor<'_>) {
    pods::sleeping(cluster, "executed", "edge-2");
    let path = "/exec/default/executed/main?command=echo&command=said-in-the-pod&output=1";
    let websocket = |curl: Launch| {
        [
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Protocol: v4.channel.k8s.io",
        ]
        .into_iter()
        .fold(curl.arg("--no-buffer"), |curl, header| {
            curl.arg("--header").arg(header)
        })
    };
    let admin = as_user(
        websocket(curl(cluster, "culvert", path)),
        cluster,
        Some("admin"),
    );
    let mut admin = admin.start().unwrap();
    admin.wait_for_line("said-in-the-pod", PATIENCE).unwrap();
    let bearer = format!("Authorization: Bearer {}", monitor.token);
    let denied = websocket(curl(cluster, "culvert", path))
        .arg("--header")
        .arg(bearer);
    let denied = answer(&denied);
    assert!(
        denied.contains("may not create nodes/proxy of any node") && denied.ends_with("status=403"),
        "{denied}"
    );
    pods::delete(cluster, "executed");
}

fn the_log_says_who_did_what(cluster: &Cluster) {
    let log = server_log(cluster).unwrap();
    let line = |parts: &[&str]| {
        log.lines()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    };
    let monitor = "system:serviceaccount:default:monitor";
    assert!(
        line(&["audit", monitor, "/metrics", "edge-1", "allowed", "200"]),
        "{log}"
    );
    assert!(
        line(&["audit", monitor, "/pods", "edge-1", "denied", "403"]),
        "{log}"
    );
    assert!(
        line(&[
            "audit",
            "/exec/default/executed/main",
            "edge-2",
            "create",
            "allowed",
            "101"
        ]),
        "{log}"
    );
    assert!(!log.contains("said-in-the-pod"), "a query may hold secrets");
}

fn nobody_else_is_given_the_certificate_for_kubelets(cluster: &Cluster) {
    let requests = Requests::new(cluster, "kubelets");
    let agent = crate::requests::agent_pod(cluster, cluster.edge(1));
    let askers = [
        ("of-kubelet", Identity::of(cluster, "kubelet-edge-2")),
        (
            "of-agent",
            Identity::service_account(cluster, (CULVERT_NAMESPACE, AGENTS), Some(&agent)),
        ),
    ];
    for (name, who) in &askers {
        let request = Request::agent_of(name, "control-plane", &[]).named("tunnel-proxy-client");
        let request = request.of(&["culvert:proxy"]);
        requests.ask(who, &request).unwrap();
    }
    wait_until("both are denied", PATIENCE, || {
        let outcomes = requests.outcomes()?;
        let is_denied = |decision: &Decision| {
            matches!(decision, Decision::Denied(why) if why.contains("only a server on that machine may"))
        };
        let denied = outcomes.values().filter(|outcome| is_denied(&outcome.decision)).count();
        Ok((denied == askers.len()).then_some(()))
    })
    .unwrap();
}
