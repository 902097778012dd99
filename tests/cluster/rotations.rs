//! Certificates are replaced while they are in use, and nobody who is connected notices.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use culvert_tests::cluster::{CULVERT_NAMESPACE, Cluster, wait_until};
use culvert_tests::{Daemon, command};
use time::OffsetDateTime;
use tunnel_user::observability::status::{CertificateStatus, StatusReport};

use crate::dials::shown_certificate;
use crate::pods;
use crate::requests::agent_pod;
use crate::rollouts::{replace, server_pods};
use crate::stage::{PATIENCE, culvert};

/// Long enough to get all things going before the first renewal, at 70 % of it.
const SHORT_LIFE: Duration = Duration::from_mins(2);
const TICKS: &str = "i=0; while sleep 0.1; do i=$((i+1)); echo tick $i; done";

#[test]
fn a_corrupt_store_heals_at_the_next_start_and_certificates_are_renewed_under_an_open_exec() {
    let cluster = culvert();
    pods::sleeping(cluster, "kept", "edge-1");
    let stores = stores(cluster);
    sign_for(cluster, Some(SHORT_LIFE));
    for store in &stores {
        fs::write(store, "-----BEGIN CERTIFICATE-----\nhalf a file").unwrap();
    }
    let (server, agent) = restart_both(cluster);
    let certificates = || -> Result<_> {
        Ok([
            certificate(cluster, &server)?,
            certificate(cluster, &agent)?,
        ])
    };
    let short = certificates().unwrap();
    for store in &stores {
        let mode = fs::metadata(store).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", store.display());
    }
    let mut exec = exec(cluster, "kept");
    let now = certificates().unwrap();
    assert_eq!(now, short, "the exec came before the renewal");
    sign_for(cluster, None);
    let ends = short.each_ref().map(|certificate| certificate.expires_at);
    let lasts = |end| end < OffsetDateTime::now_utc() + 2 * SHORT_LIFE;
    assert!(ends.into_iter().all(lasts), "{short:?}");
    wait_until("both are renewed", 2 * SHORT_LIFE, || {
        let renewed = certificates()?;
        let longer = |one: &CertificateStatus| !lasts(one.expires_at);
        Ok(renewed.iter().all(longer).then_some(()))
    })
    .unwrap();
    wait_until("the old ones have ended", 2 * SHORT_LIFE, || {
        let now = OffsetDateTime::now_utc();
        Ok(ends.into_iter().all(|end| end < now).then_some(()))
    })
    .unwrap();
    goes_on(&mut exec);
    // Whatever the API server had kept open through the server of before.
    wait_until("only one server is left", 2 * PATIENCE, || {
        Ok((server_pods(cluster).len() == 1).then_some(()))
    })
    .unwrap();
    pods::delete(cluster, "kept");
}

/// Files of edge-1's agent and of the server.
fn stores(cluster: &Cluster) -> [PathBuf; 2] {
    let server = cluster.control_plane().directory();
    let agent = cluster.edge(0).directory();
    [
        server.join("var/lib/culvert/pki/server.pem"),
        agent.join("var/lib/culvert-agent/pki/agent.pem"),
    ]
}

/// What is signed from now on lives so long, or a year.
fn sign_for(cluster: &Cluster, life: Option<Duration>) {
    let seconds = life.map(|life| format!("{}s", life.as_secs()));
    let flag = seconds
        .as_deref()
        .map(|life| ("cluster-signing-duration", life));
    cluster.restart_controllers(flag.as_slice()).unwrap();
}

/// Restarts the server, and edge-1's agent; returns their new pods.
fn restart_both(cluster: &Cluster) -> (String, String) {
    let pods = server_pods(cluster);
    let before: Vec<_> = pods.keys().map(String::as_str).collect();
    let server = replace(cluster, &before);
    let agent = agent_pod(cluster, cluster.edge(0));
    let words = ["delete", "pod", "-n", CULVERT_NAMESPACE, &agent];
    cluster.kubectl(words).unwrap();
    let ready = wait_until("the agent is back", PATIENCE, || {
        let agent = agent_pod(cluster, cluster.edge(0));
        let pod = cluster.get(&format!("pod {agent} -n {CULVERT_NAMESPACE}"))?;
        let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
        Ok(ready.then_some(agent))
    });
    (server, ready.unwrap())
}

#[test]
fn a_servers_certificate_follows_its_names_under_an_open_exec() {
    let cluster = culvert();
    let server = server_pods(cluster)
        .into_iter()
        .find(|(_, pod)| !pod.leaving)
        .unwrap()
        .0;
    pods::sleeping(cluster, "named", "edge-2");
    let mut exec = exec(cluster, "named");
    let before = certificate(cluster, &server).unwrap();
    annotate(
        cluster,
        "x-tunnel-server-external-addr=10.77.0.1:31008,culvert.example:10262",
    );
    until_another(cluster, &server, &before);
    let names = names_on_agent_port(cluster);
    assert!(names.contains("DNS:culvert.example"), "{names}");
    annotate(cluster, "x-tunnel-server-external-addr-");

    goes_on(&mut exec);
    pods::delete(cluster, "named");
}

fn annotate(cluster: &Cluster, annotation: &str) {
    let service = "annotate --overwrite service x-tunnel-server-svc -n";
    let words = service.split(' ').chain([CULVERT_NAMESPACE, annotation]);
    cluster.kubectl(words).unwrap();
}

/// What a server shows to whoever comes.
fn names_on_agent_port(cluster: &Cluster) -> String {
    let shown = shown_certificate(cluster.edge(1), "10.77.0.1:31008");
    let mut openssl = Command::new("openssl");
    let x509 = openssl.args(["x509", "-noout", "-ext", "subjectAltName"]);
    command::output_of(x509, &shown).unwrap()
}

fn until_another(cluster: &Cluster, pod: &str, before: &CertificateStatus) -> CertificateStatus {
    wait_until("another certificate", PATIENCE, || {
        let now = certificate(cluster, pod)?;
        Ok((now.valid_from > before.valid_from).then_some(now))
    })
    .unwrap()
}

/// The certificate that a server or an agent has in use.
fn certificate(cluster: &Cluster, pod: &str) -> Result<CertificateStatus> {
    let agent = pod.starts_with("culvert-agent").then_some("--agent");
    let status = [
        "exec",
        "-n",
        CULVERT_NAMESPACE,
        pod,
        "--",
        "/culvert",
        "status",
        "--json",
    ];
    let said = cluster.kubectl(status.into_iter().chain(agent))?;
    let status: StatusReport = serde_json::from_str(&said)?;
    status
        .certificates
        .into_iter()
        .next()
        .context("no certificate")
}

pub(crate) fn exec(cluster: &Cluster, pod: &str) -> Daemon {
    let kubectl = cluster.kubectl_launch().unwrap();
    let exec = kubectl.args(["exec", pod, "--", "sh", "-c", TICKS]);
    let mut exec = exec.start().unwrap();
    exec.wait_for_line("tick 5", PATIENCE).unwrap();
    exec
}

pub(crate) fn goes_on(exec: &mut Daemon) {
    exec.forget_output();
    exec.wait_for_line("tick ", PATIENCE).unwrap();
    assert!(exec.is_running(), "{}", exec.output());
}
