use std::{ffi::OsString, io::Write as _, time::Duration};

use clap::CommandFactory;
use tempfile::NamedTempFile;

use super::*;

fn parse_with(line: &str, environment: &[(&str, &str)]) -> Result<Command, ParseError> {
    let args = std::iter::once("culvert").chain(line.split_whitespace());
    let environment = environment.iter().copied().collect();
    parse(args.map(OsString::from), &environment)
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

/// The error as a person sees it, on one line.
fn refusal(line: &str, environment: &[(&str, &str)]) -> String {
    let text = match parse_with(line, environment) {
        Ok(command) => panic!("{line:?} was accepted: {command:?}"),
        Err(ParseError::CommandLine(answer)) => answer.to_string(),
        Err(ParseError::Settings(error)) => format!("{error:#}"),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn file(content: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

#[test]
fn clap_finds_no_fault_in_the_definition() {
    Cli::command().debug_assert();
}

#[test]
fn defaults_are_those_of_the_reference() {
    let args = server("", &[]);
    assert_eq!(args.agent_port, 10262);
    assert_eq!(args.meta_port, 10265);
    assert_eq!(args.redirect_port.get(), 10270);
    assert_eq!(args.mark.number(), 0xc17);
    assert_eq!(args.agent_certificate_ttl, Duration::from_hours(90 * 24));
    assert_eq!(args.session.connection_window.bytes(), 256 << 10);
    assert_eq!(args.session.max_connections_per_session, 8192);
    assert_eq!(args.session.dial_timeout, Duration::from_secs(5));
    assert_eq!(args.session.drain_timeout, Duration::from_secs(30));
    assert_eq!(args.offline_nodes, OfflineNodes::Reset);
    assert_eq!(args.ebpf_log_level, EbpfLogLevel::Off);
    assert!(!args.uninstall);
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
    assert_eq!(token.expose(), "0123456e7.00012345678901234567890123");
    assert!(!format!("{args:?}").contains("0123456e7"));
}

#[test]
fn a_file_without_settings_sets_nothing() {
    for content in ["", "# nothing\n", "---\n"] {
        let config = file(content);
        let args = server(&format!("--config {}", config.path().display()), &[]);
        assert_eq!(args.agent_port, 10262, "{content:?}");
    }
}

/// What stands in the file, where the refusal must point (`F` is the file), what it must say.
const BAD_FILES: &[(&str, &str, &str)] = &[
    (
        "agent-prot: 1\n",
        "F:1: ",
        "unknown key \"agent-prot\": did you mean \"agent-port\"?",
    ),
    (
        "agent_port: 1\n",
        "F:1: ",
        "unknown key \"agent_port\": did you mean \"agent-port\"?",
    ),
    (
        "\nzzz: 1\n",
        "F:2: ",
        "keys are the names of the flags without the dashes",
    ),
    ("zzz:\n  a: 1\n", "F:1: ", "unknown key \"zzz\""),
    ("config: x\n", "F:1: ", "unknown key \"config\""),
    (
        "meta-port: 1\nagent-port: many\n",
        "F:2: ",
        "agent-port: \"many\" is not valid: invalid digit",
    ),
    (
        "agent-port: 70000\n",
        "F:1: ",
        "agent-port: \"70000\" is not valid",
    ),
    (
        "agent-port: [1, 2]\n",
        "F:1: ",
        "agent-port takes one value",
    ),
    (
        "agent-port: {a: 1}\n",
        "F:1: ",
        "agent-port takes one value",
    ),
    (
        "agent-port:\n",
        "F:1: ",
        "agent-port takes one value: nothing stands there",
    ),
    (
        "ports:\n",
        "F:1: ",
        "ports takes a value or a list of values: nothing stands there",
    ),
    (
        "agent-port: 1\nagent-port: 2\n",
        "F:2: ",
        "agent-port is set twice: remove one",
    ),
    (
        "uninstall: maybe\n",
        "F:1: ",
        "uninstall: \"maybe\" is neither true nor false",
    ),
    (
        "uninstall: [true]\n",
        "F:1: ",
        "uninstall takes true or false",
    ),
    (
        "gate-policy: open\n",
        "F:1: ",
        "gate-policy: \"open\" is not valid: use bypass, refuse",
    ),
    (
        "dial-timeout: 5\n",
        "F:1: ",
        "dial-timeout: \"5\" is not valid",
    ),
    ("ports: [9100, a]\n", "F:1: ", "ports: \"a\" is not valid"),
    ("ports: [[1]]\n", "F:1: ", "ports takes a value or a list"),
    ("ports: {a: 1}\n", "F:1: ", "ports takes a value or a list"),
    (
        "- agent-port\n",
        "file F: ",
        "expected lines of the form `flag: value`",
    ),
    (
        "just text\n",
        "file F: ",
        "a text, expected lines of the form `flag: value`",
    ),
    ("a: [\n", "file F: ", "unclosed bracket '[' at line 1"),
    ("\u{1}\n", "file F: ", "unexpected character"),
    ("a: *x\n", "file F: ", "unknown anchor at line 1"),
];

#[test]
fn every_bad_file_is_refused_with_place_cause_and_way_out() {
    for (content, place, cause) in BAD_FILES {
        let config = file(content);
        let path = config.path().display().to_string();
        let refusal = refusal(&format!("server --config {path}"), &[]);
        for text in [&place.replace('F', &path), *cause] {
            assert!(
                refusal.contains(text),
                "{content:?} lacks {text:?}: {refusal}"
            );
        }
    }
}

#[test]
fn a_file_that_is_only_a_token_is_not_printed() {
    let token = file("abcdef.0123456789\n");
    let refusal = refusal(&format!("agent --config {}", token.path().display()), &[]);
    assert!(!refusal.contains("0123456789"), "{refusal}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let text = refusal("server --config /nonexistent/culvert.yaml", &[]);
    assert_eq!(
        text,
        "cannot read configuration file /nonexistent/culvert.yaml: No such file or directory \
         (os error 2)"
    );
    let not_text = NamedTempFile::new().unwrap();
    std::fs::write(not_text.path(), [0xff, 0xfe]).unwrap();
    let text = refusal(
        &format!("server --config {}", not_text.path().display()),
        &[],
    );
    assert!(text.contains(not_text.path().to_str().unwrap()), "{text}");
}

#[test]
fn every_bad_variable_is_named() {
    for (name, value, text) in [
        (
            "CULVERT_AGENT_PORT",
            "x",
            "CULVERT_AGENT_PORT: \"x\" is not valid: invalid digit",
        ),
        (
            "CULVERT_PORTS",
            "9100,a",
            "CULVERT_PORTS: \"a\" is not valid",
        ),
        (
            "CULVERT_UNINSTALL",
            "yes",
            "CULVERT_UNINSTALL: \"yes\" is neither true nor false",
        ),
        (
            "CULVERT_GATE_POLICY",
            "x",
            "CULVERT_GATE_POLICY: \"x\" is not valid: use bypass, refuse",
        ),
        (
            "CULVERT_CONFIG",
            "/nonexistent",
            "configuration file /nonexistent",
        ),
    ] {
        let refusal = refusal("server", &[(name, value)]);
        assert!(refusal.contains(text), "{name}={value}: {refusal}");
    }
}

/// A command line, and what its refusal must say.
const BAD_FLAGS: &[(&str, &[&str])] = &[
    ("server --agent-port 70000", &["--agent-port", "70000"]),
    ("server --agent-prot 1", &["--agent-prot", "--agent-port"]),
    ("server extra", &["extra"]),
    ("sevrer", &["sevrer", "server"]),
    ("server --ports 0", &["--ports", "0"]),
    ("server --redirect-port 0", &["--redirect-port"]),
    ("server --bind-address host", &["--bind-address", "host"]),
    (
        "server --gate-policy open",
        &["--gate-policy", "bypass, refuse"],
    ),
    (
        "server --offline-nodes x",
        &["--offline-nodes", "reset, bypass, refuse"],
    ),
    (
        "server --ebpf-log-level x",
        &["--ebpf-log-level", "off, error"],
    ),
    ("server --mark 0", &["--mark", "from 1 to 0xffffffff"]),
    (
        "server --mark 0x100000000",
        &["--mark", "from 1 to 0xffffffff"],
    ),
    (
        "server --dial-timeout 0s",
        &["--dial-timeout", "more than 0"],
    ),
    ("server --dial-timeout 5", &["--dial-timeout", "as in 5s"]),
    (
        "server --agent-certificate-ttl soon",
        &["--agent-certificate-ttl", "90d"],
    ),
    (
        "server --connection-window 1KiB",
        &["--connection-window", "from 16KiB to 64MiB"],
    ),
    (
        "server --connection-window 1x",
        &["--connection-window", "as in 256KiB"],
    ),
    (
        "server --max-connections-per-session 0",
        &["--max-connections-per-session", "1..=1000000"],
    ),
    (
        "server --log-level ingo",
        &["--log-level", "use off, error, warn, info, debug or trace"],
    ),
    ("server --log-format xml", &["--log-format", "text, json"]),
    ("server --uninstall=x", &["--uninstall", "true, false"]),
    (
        "server --redirect-address 10.0.0.1,10.0.0.2",
        &["--redirect-address", "IPv4", "at most one"],
    ),
    (
        "server --redirect-address 0.0.0.0",
        &["--redirect-address 0.0.0.0", "this machine's own"],
    ),
    (
        "server --redirect-port 10250",
        &["--redirect-port 10250", "choose another"],
    ),
    ("server --ports 10270", &["10270", "out of --ports"]),
    (
        "server --agent-port 10265",
        &["--agent-port and --meta-port are both 10265", "choose"],
    ),
    ("agent", &["--server is missing", "culvert token create"]),
    ("agent --server a:b:c", &["--server", "HOST:PORT"]),
    ("agent --server a:0", &["--server", "HOST:PORT"]),
    (
        "agent --server s --node-name Edge_1",
        &["--node-name", "lower-case"],
    ),
    (
        "agent --server s --node-ip ::1",
        &["--node-ip ::1", "control plane knows"],
    ),
    (
        "agent --server s --token t",
        &["--ca-hash is missing", "culvert token create"],
    ),
    ("agent --server s --token-file f", &["--ca-hash is missing"]),
    (
        "agent --server s --token t --token-file f --ca-hash sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        &["--token and --token-file", "one of them"],
    ),
    (
        "agent --server s --ca-hash md5:1",
        &["--ca-hash", "sha256: and 64"],
    ),
    (
        "agent --server s --allow 10.0.0.0/33",
        &["--allow", "10.0.0.0/8:443,8000-8100"],
    ),
    (
        "agent --server s --no-default-targets",
        &["--no-default-targets", "--allow CIDR"],
    ),
    ("status --run-dir", &["--run-dir"]),
];

#[test]
fn every_bad_flag_is_refused_with_its_name_and_a_way_out() {
    for (line, texts) in BAD_FLAGS {
        let refusal = refusal(line, &[]);
        for text in *texts {
            assert!(refusal.contains(text), "{line:?} lacks {text:?}: {refusal}");
        }
    }
}

#[test]
fn the_token_file_is_read_when_the_token_is_needed() {
    let hash = format!("sha256:{}", "ab".repeat(32));
    let with = |file: &str| {
        let line = format!("--server s --ca-hash {hash} --token-file {file}");
        agent(&line, &[]).token()
    };
    let token = file("id.secret\n");
    let read = with(token.path().to_str().unwrap()).unwrap().unwrap();
    assert_eq!(read.expose(), "id.secret");
    let missing = format!("{:#}", with("/nonexistent").unwrap_err());
    assert!(
        missing.starts_with("cannot read --token-file /nonexistent: "),
        "{missing}"
    );
    let empty = file("\n");
    let empty = with(empty.path().to_str().unwrap())
        .unwrap_err()
        .to_string();
    assert!(empty.contains("is empty: put the token"), "{empty}");
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
