//! Culvert called by the names of Yurt-Tunnel's programs, with the flags and variables of its manifests.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use culvert_tests::lab::CONTROL;
use culvert_tests::{Launch, NetNs, command, programs, until};

use crate::proxies::kubeconfig;
use crate::stage::{PATIENCE, Stage, end_of};

/// A link of that name to the program.
fn named(stage: &Stage, name: &str) -> PathBuf {
    let link = stage.path(name);
    symlink(programs::culvert().unwrap(), &link).unwrap();
    link
}

/// A directory as Yurt-Tunnel leaves it behind: others may read it, and its certificate is in it.
fn certificates(stage: &Stage, program: &str) -> PathBuf {
    let directory = stage.path(&format!("{program}-pki"));
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    fs::write(directory.join(format!("{program}-current.pem")), "theirs").unwrap();
    directory
}

fn metrics(namespace: &NetNs, url: &str) -> String {
    until("the meta port answers", PATIENCE, || {
        let mut curl = namespace.command("curl");
        command::output_of(curl.args(["-sSf", url]), "").map(Some)
    })
    .unwrap()
}

fn shows(metrics: &str, names: &[&str]) {
    for name in names {
        let is_shown = metrics.lines().any(|line| line.starts_with(name));
        assert!(is_shown, "{name} is not in {metrics}");
    }
}

#[test]
fn a_server_called_as_yurt_tunnels_listens_as_its_flags_say_and_tells_what_they_mean() {
    let stage = Stage::new();
    let pki = certificates(&stage, "yurttunnel-server");
    let server = stage
        .site
        .client(stage.control(), named(&stage, "yurt-tunnel-server"));
    let server = server
        .words(
            "--bind-address=10.77.0.1 --insecure-bind-address=10.77.0.1 --proxy-strategy=destHost",
        )
        .words("--tunnel-agent-connect-port 10362 --iptables-sync-period=30 --server-count 2 --v=2")
        .arg(format!("--kube-config={}", kubeconfig(&stage).display()))
        .arg(format!("--cert-dir={}", pki.display()))
        .env("CULVERT_NODE_NAME", "control")
        .env("CULVERT_RUN_DIR", stage.site.server_run())
        .env("CULVERT_CGROUP", stage.site.captured().path())
        .env("CULVERT_PIN_ROOT", stage.site.pins())
        .env("CULVERT_REDIRECT_ADDRESS", CONTROL[0].to_string());
    let mut server = server.start().unwrap();
    server.wait_for_line("listening", PATIENCE).unwrap();
    let said = server.output();
    for told in [
        "started by Yurt-Tunnel's command line",
        "culvert server --kubernetes --bind-address=10.77.0.1 --http-address=10.77.0.1",
        "--iptables-sync-period=30: the kernel's tables follow",
        "--server-count=2: servers are counted",
        "agents=\"10.77.0.1:10362\"",
        "http=\"10.77.0.1:10264\"",
        "meta=\"10.77.0.1:10265\"",
    ] {
        assert!(said.contains(told), "{told:?} is not in {said}");
    }
    assert_eq!(said.matches("--iptables-sync-period").count(), 1, "{said}");
    let metrics = metrics(stage.control(), "http://10.77.0.1:10265/metrics");
    let names = [
        "culvert_server_build_info",
        "yurttunnel_server_total_in_proxy_requests 0",
        "yurttunnel_server_cloud_nodes_counter 0",
        "konnectivity_network_proxy_server_total_registered_agents 0",
    ];
    shows(&metrics, &names);
    // What was there stays as it was, for whoever goes back.
    assert_eq!(
        fs::read_to_string(pki.join("yurttunnel-server-current.pem")).unwrap(),
        "theirs"
    );
    assert_eq!(
        fs::metadata(&pki).unwrap().permissions().mode() & 0o777,
        0o755
    );
    assert!(pki.join("culvert").is_dir());
    assert!(server.stop(PATIENCE).unwrap().success());
}

#[test]
fn an_agent_called_as_yurt_tunnels_takes_its_variables_and_asks_for_a_certificate() {
    let stage = Stage::new();
    let pki = certificates(&stage, "yurttunnel-agent");
    let agent = Launch::new(stage.edge(), named(&stage, "yurt-tunnel-agent"))
        .words("--tunnelserver-addr=10.77.0.1:31008 --meta-host 10.78.0.11 --logtostderr -v 4")
        .arg(format!("--kube-config={}", kubeconfig(&stage).display()))
        .arg(format!("--cert-dir={}", pki.display()))
        .env("NODE_NAME", "edge-1")
        .env("NODE_IP", "10.78.0.11")
        .env("POD_IP", "10.78.0.11")
        .env("CULVERT_RUN_DIR", stage.path("agent-run"));
    let mut agent = agent.start().unwrap();
    let metrics = metrics(stage.edge(), "http://10.78.0.11:10266/metrics");
    shows(
        &metrics,
        &[
            "culvert_agent_build_info",
            "# TYPE konnectivity_network_proxy_agent_dial",
        ],
    );
    let said = agent.output();
    let means = "culvert agent --kubernetes --node-name=edge-1 --node-ip=10.78.0.11 --server=10.77.0.1:31008";
    assert!(said.contains(means), "{said}");
    assert!(!said.contains("what means nothing here"), "{said}");
    assert_eq!(
        fs::read_to_string(pki.join("yurttunnel-agent-current.pem")).unwrap(),
        "theirs"
    );
    agent.stop(PATIENCE).unwrap();
    let said = agent.output();
    assert!(
        said.contains("stopped before the agent had a certificate"),
        "{said}"
    );
}

#[test]
fn help_version_and_refusals_come_by_that_name() {
    let stage = Stage::new();
    let server = || Launch::offline(stage.path("yurt-tunnel-server"));
    named(&stage, "yurt-tunnel-server");
    let help = end_of(&server().arg("--help")).unwrap();
    assert!(help.contains("--tunnel-agent-connect-port"), "{help}");
    let version = end_of(&server().arg("--version")).unwrap();
    assert!(
        version.starts_with("yurttunnel-server: culvert "),
        "{version}"
    );
    let refused = end_of(&server().arg("--egress-selector-enable=true")).unwrap_err();
    assert!(
        refused.contains("--egress-selector-enable=true: "),
        "{refused}"
    );
}
