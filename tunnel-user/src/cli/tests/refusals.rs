//! Everything that is not understood is refused with its place, cause and way out.

use super::*;

/// The error as a person sees it, on one line.
fn refusal(line: &str, environment: &[(&str, &str)]) -> String {
    let text = match parse_with(line, environment) {
        Ok(command) => panic!("{line:?} was accepted: {command:?}"),
        Err(ParseError::CommandLine(answer)) => answer.to_string(),
        Err(ParseError::Settings(error)) => format!("{error:#}"),
        Err(error @ ParseError::Version(_)) => panic!("{line}: {error}"),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
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
        "server --https-terminate",
        &[
            "--https-terminate",
            "--kubernetes",
            "leave --https-terminate out",
        ],
    ),
    (
        "server --kubernetes --relay-only --https-terminate",
        &["--https-terminate", "no --relay-only"],
    ),
    (
        "server --kubernetes --https-port 0 --https-terminate",
        &["--https-terminate", "--https-port", "give a port"],
    ),
    (
        "server --kubernetes --kubelet-ca /ca.pem",
        &["--kubelet-ca", "without --https-terminate"],
    ),
    (
        "server --kubernetes --client-ca /ca.pem",
        &["--client-ca", "without --https-terminate"],
    ),
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
        &["--ebpf-log-level", "off, info, debug"],
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
        "server --node-networks 10.0.0.1",
        &["--node-networks", "ADDRESS/LENGTH, as in 10.0.0.0/8"],
    ),
    (
        "server --kubelet-ports 10250,10270",
        &["10270, which is --redirect-port", "out of --kubelet-ports"],
    ),
    (
        "server --agent-port 10265",
        &["--agent-port and --meta-port are both 10265", "choose"],
    ),
    ("agent", &["--server is missing", "culvert token create"]),
    (
        "agent --kubeconfig k --server a",
        &["--kubeconfig", "--kubernetes"],
    ),
    ("server --cert-dir d", &["--cert-dir", "--kubernetes"]),
    (
        "agent --api-server a --server s",
        &["--api-server", "--kubernetes"],
    ),
    (
        "server --kubernetes --api-server a:6443 --kubeconfig k",
        &["--api-server", "--kubeconfig", "leave one of the two out"],
    ),
    (
        "server --kubernetes --api-server https://a",
        &["--api-server"],
    ),
    (
        "server --http-address 127.0.0.1",
        &["--http-address", "no meaning without --http-port"],
    ),
    ("server --redirect=no", &["--redirect", "true, false"]),
    ("server --service a", &["--service", "NAMESPACE/NAME"]),
    (
        "server --kubernetes --node-selector=",
        &["--node-selector", "every node"],
    ),
    (
        "agent --kubernetes --token-file t",
        &["--token-file", "--kubernetes", "leave them out"],
    ),
    (
        "agent --kubernetes --agent-certificate-ttl 5m",
        &["--agent-certificate-ttl 5m", "at least 10m"],
    ),
    (
        "server --kubernetes --cert-dns-names tunnel-server",
        &["--cert-dns-names tunnel-server", "another name"],
    ),
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
    (
        "agent --server s --no-default-targets --allow 10.0.0.0/8 --allow-ports 9100",
        &["--allow-ports", "--no-default-targets", "--allow, as in"],
    ),
    (
        "agent --server s --allow-ports 9100-9000",
        &["--allow-ports", "9400-9410"],
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
