//! Clients that name a node by TLS, at a server's own ports: the caller's identity and the kubelet's certificate meet.

use std::time::Duration;

use culvert_tests::cluster::Cluster;
use culvert_tests::report::{Connects, parse};
use culvert_tests::{Launch, programs, until};

use crate::callers::{answer, as_user};
use crate::dials::echo;
use crate::objects::Ports;
use crate::stage::{PATIENCE, culvert};

const AT_ONCE: Duration = Duration::from_secs(1);
/// What a Go program says first that wants `edge-1`.
const HELLO: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../tunnel-user/src/frontend/https/client_hello/testdata/go-named.bin"
);

/// A curl that knows nodes by name, and verifies their kubelets' certificates for that.
fn curl(cluster: &Cluster, user: Option<&str>, node: &str, path: &str) -> Launch {
    let curl = cluster.control_plane().launch("curl");
    let curl = curl
        .words("--silent --show-error --max-time 10 --write-out status=%{http_code} --connect-to")
        .arg(format!("{node}:10250:10.77.0.1:10263"))
        .arg("--cacert")
        .arg(cluster.directory().pki().join("ca.crt"))
        .arg(format!("https://{node}:10250{path}"));
    as_user(curl, cluster, user)
}

#[test]
fn a_kubelet_is_reached_by_its_nodes_name_and_sees_who_the_caller_is() {
    let cluster = culvert();
    for edge in cluster.machines().iter().skip(1) {
        let node = edge.name();
        let nobody = answer(&curl(cluster, None, node, "/pods"));
        assert!(nobody.ends_with("status=401"), "{node}: {nobody}");
        let admin = answer(&curl(cluster, Some("admin"), node, "/healthz"));
        assert!(admin.ends_with("status=200"), "{node}: {admin}");
        let scheduler = answer(&curl(cluster, Some("kube-scheduler"), node, "/metrics"));
        let is_named = scheduler.contains("user=system:kube-scheduler");
        assert!(
            is_named && scheduler.ends_with("status=403"),
            "{node}: {scheduler}"
        );
    }
}

/// How a connect ends that says the hello and hears it again.
fn says_hello(cluster: &Cluster, to: &str) -> Connects {
    let probe = cluster.control_plane().launch(programs::probe().unwrap());
    let probe = probe.words("flood --count 1 --seconds 10 --to").arg(to);
    let probe = probe.arg("--say").arg(HELLO);
    parse(&probe.start().unwrap().succeed(PATIENCE).unwrap()).unwrap()
}

#[test]
fn each_https_port_of_the_config_map_has_a_port_of_its_own_as_long_as_it_is_listed() {
    let cluster = culvert();
    let _echo = echo(cluster, "10.78.0.11:9447");
    let at = "10.77.0.1:29447";
    assert_eq!(says_hello(cluster, at).succeeded, 0, "it is not listed yet");
    let ports = Ports::new(cluster, &[("https-proxy-ports", "9447")]);
    // The agent reads the ConfigMap as well, which may take a moment longer.
    until("clients are carried", AT_ONCE * 2, || {
        Ok((says_hello(cluster, at).succeeded == 1).then_some(()))
    })
    .unwrap();
    ports.set(&[("http-proxy-ports", "9447")]);
    until("nobody listens any more", AT_ONCE, || {
        let failed = says_hello(cluster, at).failed;
        Ok(failed.contains_key("connect ECONNREFUSED").then_some(()))
    })
    .unwrap();
}
