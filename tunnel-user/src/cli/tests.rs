mod reference;
mod refusals;

use std::{ffi::OsString, io::Write as _, time::Duration};

use tempfile::NamedTempFile;

use super::*;
use crate::settings::{EbpfLogLevel, OfflineNodes};

fn parse_with(line: &str, environment: &[(&str, &str)]) -> Result<Command, ParseError> {
    let args = std::iter::once("culvert").chain(line.split_whitespace());
    let environment = environment.iter().copied().collect();
    parse(args.map(OsString::from), &environment).map(|invocation| invocation.command)
}

fn server(line: &str, environment: &[(&str, &str)]) -> ServerArgs {
    match parse_with(&format!("server {line}"), environment) {
        Ok(Command::Server(args)) => *args,
        other => panic!("{other:?}"),
    }
}

fn agent(line: &str, environment: &[(&str, &str)]) -> AgentArgs {
    match parse_with(&format!("agent {line}"), environment) {
        Ok(Command::Agent(args)) => *args,
        other => panic!("{other:?}"),
    }
}

fn file(content: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

#[test]
fn clap_finds_no_fault_in_the_definition() {
    program().debug_assert();
}

#[test]
fn defaults_are_those_of_the_reference() {
    let args = server("", &[]);
    assert_eq!(args.agent_port, 10262);
    assert_eq!(args.meta_port, 10265);
    assert_eq!(args.redirect_port.get(), 10270);
    assert_eq!(args.mark.number(), 0xc17);
    assert_eq!(args.agent_certificate_ttl, Duration::from_hours(90 * 24));
    assert_eq!(args.session.connection_window.bytes(), 16 << 20);
    assert_eq!(args.session.max_connections_per_session, 8192);
    assert_eq!(args.session.dial_timeout, Duration::from_secs(5));
    assert_eq!(args.session.drain_timeout, Duration::from_secs(30));
    assert_eq!(args.offline_nodes, OfflineNodes::Reset);
    assert_eq!(args.ebpf_log_level, EbpfLogLevel::Off);
    assert!(!args.uninstall);
    assert_eq!(args.http_port(), None);
    let in_cluster = server("--kubernetes --clients 10.244.0.0/16,host", &[]);
    assert_eq!(in_cluster.http_port(), Some(10264));
    assert_eq!(
        in_cluster.http_networks().unwrap(),
        ["10.244.0.0/16".parse().unwrap()]
    );
    let other = server("--kubernetes --http-port 0", &[]);
    assert!(other.http_port().is_none() && other.http_networks().is_none());
    let ports: Vec<_> = args.tunnel_ports().iter().map(|p| p.number()).collect();
    assert_eq!(ports, [10250, 10255]);
    assert_eq!(agent("--server s", &[]).meta_port, 10266);
}

#[test]
fn lists_repeat_or_take_commas() {
    let args = server("--ports 9100,9445 --port 10250", &[]);
    let ports: Vec<_> = args.tunnel_ports().iter().map(|p| p.number()).collect();
    assert_eq!(ports, [9100, 9445, 10250, 10255]);
    let args = agent("--server a,b:1 --allow 10.0.0.0/8:443,8000-8100", &[]);
    assert_eq!(args.server.len(), 2);
    assert_eq!(args.allow.len(), 1);
}

#[test]
fn servers_are_written_in_every_usual_way() {
    for (given, meant) in [
        ("example.com", "example.com:10262"),
        ("example.com:1", "example.com:1"),
        ("10.0.0.1", "10.0.0.1:10262"),
        ("10.0.0.1:1", "10.0.0.1:1"),
        ("fd00::1", "[fd00::1]:10262"),
        ("[fd00::1]", "[fd00::1]:10262"),
        ("[fd00::1]:1", "[fd00::1]:1"),
    ] {
        let args = agent(&format!("--server {given}"), &[]);
        assert_eq!(args.server[0].to_string(), meant);
    }
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let config = file("agent-port: 1\nmeta-port: 1\nredirect-port: 3\n");
    let line = format!("--config {} --agent-port 11", config.path().display());
    let environment = [("CULVERT_AGENT_PORT", "12"), ("CULVERT_META_PORT", "13")];
    let args = server(&line, &environment);
    assert_eq!(args.agent_port, 11);
    assert_eq!(args.meta_port, 13);
    assert_eq!(args.redirect_port.get(), 3);
}

#[test]
fn the_environment_names_the_file_too() {
    let config = file("uninstall: true\n");
    let environment = [("CULVERT_CONFIG", config.path().to_str().unwrap())];
    assert!(server("", &environment).uninstall);
    assert!(!server("--uninstall=false", &environment).uninstall);
}

#[test]
fn an_empty_variable_is_not_set() {
    assert_eq!(server("", &[("CULVERT_AGENT_PORT", "")]).agent_port, 10262);
}

#[test]
fn node_name_and_address_come_from_the_customary_variables() {
    let customary = [("NODE_NAME", "edge-1"), ("NODE_IP", "10.0.0.1")];
    let args = agent("--server s", &customary);
    assert_eq!(args.node_name().unwrap().as_str(), "edge-1");
    assert_eq!(args.node_ip[0].to_string(), "10.0.0.1");
    let own = [("NODE_NAME", "edge-1"), ("CULVERT_NODE_NAME", "edge-2")];
    let args = agent("--server s", &own);
    assert_eq!(args.node_name().unwrap().as_str(), "edge-2");
}

#[test]
fn the_file_takes_every_kind_of_value() {
    let config = file(
        "# a comment\n\
         ports: [9100, 9445]\n\
         redirect-address:\n  - 10.0.0.1\n  - fd00::1\n\
         connection-window: 1MiB\n\
         dial-timeout: 3s\n\
         mark: 0x10\n\
         ebpf-log-level: off\n\
         uninstall: true\n\
         state-dir: \"/srv/culvert\"\n\
         log-level: info,h2=debug\n",
    );
    let args = server(&format!("--config {}", config.path().display()), &[]);
    assert_eq!(args.ports.len(), 2);
    assert_eq!(args.redirect_address.len(), 2);
    assert_eq!(args.session.connection_window.bytes(), 1 << 20);
    assert_eq!(args.session.dial_timeout, Duration::from_secs(3));
    assert_eq!(args.mark.number(), 16);
    assert_eq!(args.state_dir.to_str(), Some("/srv/culvert"));
    assert_eq!(args.log.log_level.to_string(), "info,h2=debug");
    assert!(args.uninstall);
    let one = file("ports: 9100\n");
    let args = server(&format!("--config {}", one.path().display()), &[]);
    assert_eq!(args.ports.len(), 1);
}

#[test]
fn a_token_keeps_its_text_and_stays_out_of_dumps() {
    let config = file(&format!(
        "server: s\ntoken: 0123456e7.00012345678901234567890123\nca-hash: sha256:{}\n",
        "ab".repeat(32)
    ));
    let args = agent(&format!("--config {}", config.path().display()), &[]);
    let token = args.token().unwrap().unwrap();
    assert_eq!(token.reveal(), "0123456e7.00012345678901234567890123");
    assert!(!format!("{args:?}").contains("0123456e7"));
}

#[test]
fn a_token_on_the_command_line_is_known_to_be_public() {
    let hash = format!("sha256:{}", "ab".repeat(32));
    let token = "0123456e7.00012345678901234567890123";
    let line = format!("--server s --ca-hash {hash}");
    assert!(agent(&format!("{line} --token {token}"), &[]).token_is_public);
    let secret = agent(&line, &[("CULVERT_TOKEN", token)]);
    assert!(secret.token.is_some() && !secret.token_is_public);
}

#[test]
fn a_file_without_settings_sets_nothing() {
    for content in ["", "# nothing\n", "---\n"] {
        let config = file(content);
        let args = server(&format!("--config {}", config.path().display()), &[]);
        assert_eq!(args.agent_port, 10262, "{content:?}");
    }
}

#[test]
fn the_token_file_is_read_when_the_token_is_needed() {
    let hash = format!("sha256:{}", "ab".repeat(32));
    let with = |file: &str| {
        let line = format!("--server s --ca-hash {hash} --token-file {file}");
        agent(&line, &[]).token()
    };
    let token = file("aaaaaaaaaa.secret\n");
    let read = with(token.path().to_str().unwrap()).unwrap().unwrap();
    assert_eq!(read.reveal(), "aaaaaaaaaa.secret");
    let missing = format!("{:#}", with("/nonexistent").unwrap_err());
    assert!(
        missing.starts_with("cannot read --token-file /nonexistent: "),
        "{missing}"
    );
    for useless in ["\n", "no token\n"] {
        let useless = file(useless);
        let error = with(useless.path().to_str().unwrap()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("holds no token: put the one"), "{error}");
    }
}

#[test]
fn help_and_version_are_answers_not_failures() {
    for line in ["--help", "server --help", "agent -h", "--version"] {
        match parse_with(line, &[]) {
            Err(ParseError::CommandLine(answer)) => assert_eq!(answer.exit_code(), 0, "{line}"),
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn variables_that_nothing_reads_are_found() {
    let environment: Environment = [
        ("CULVERT_AGENT_PROT", "1"),
        ("CULVERT_AGENT_PORT", "1"),
        ("CULVERT_NODE_NAME", "of an agent beside the server"),
        // What Kubernetes sets for Services named culvert and culvert-server.
        ("CULVERT_SERVICE_HOST", "10.96.0.1"),
        ("CULVERT_PORT", "tcp://10.96.0.1:10262"),
        ("CULVERT_PORT_10262_TCP_ADDR", "10.96.0.1"),
        ("CULVERT_SERVER_SERVICE_PORT", "10262"),
        ("NODE_NAME", "edge-1"),
    ]
    .into_iter()
    .collect();
    assert_eq!(unread_variables(&environment), ["CULVERT_AGENT_PROT"]);
}

#[test]
fn the_environment_sets_flags_at_every_depth() {
    let environment = [
        ("CULVERT_STATE_DIR", "/srv/culvert"),
        ("CULVERT_NODE", "edge-1"),
    ];
    let command = parse_with("token create", &environment).unwrap();
    let text = format!("{command:?}");
    assert!(text.contains("\"/srv/culvert\""), "{text}");
    assert!(text.contains("edge-1"), "{text}");
    let command = parse_with("node list --state-dir /a", &environment).unwrap();
    assert!(format!("{command:?}").contains("\"/a\""), "{command:?}");
}
