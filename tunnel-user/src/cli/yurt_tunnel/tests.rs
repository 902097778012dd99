use std::{collections::BTreeMap, time::Duration};

use clap::CommandFactory as _;

use crate::{
    cli::{Cli, Command, Environment, ParseError, Translated, parse, program},
    settings::{AgentArgs, ServerArgs},
};

/// What the programs of Yurt-Tunnel 1.5 say themselves; the cluster tier asks them.
const LISTS: [(&str, &str); 2] = [
    ("yurt-tunnel-server", include_str!("server-flags.txt")),
    ("yurt-tunnel-agent", include_str!("agent-flags.txt")),
];

const NODE: [(&str, &str); 2] = [("NODE_NAME", "edge-1"), ("NODE_IP", "10.0.0.1")];

fn run(line: &str, environment: &[(&str, &str)]) -> Result<(Command, String), ParseError> {
    let environment: Environment = environment.iter().copied().collect();
    let invocation = parse(line.split_whitespace().map(Into::into), &environment)?;
    let translated = invocation.translated;
    let ignored = translated.as_ref().and_then(Translated::ignored);
    Ok((invocation.command, ignored.unwrap_or_default()))
}

fn server(flags: &str, environment: &[(&str, &str)]) -> (ServerArgs, String) {
    match run(&format!("culvert yurt-tunnel-server {flags}"), environment) {
        Ok((Command::Server(args), ignored)) => (*args, ignored),
        other => panic!("{other:?}"),
    }
}

fn agent(flags: &str, environment: &[(&str, &str)]) -> (AgentArgs, String) {
    match run(&format!("culvert yurt-tunnel-agent {flags}"), environment) {
        Ok((Command::Agent(args), ignored)) => (*args, ignored),
        other => panic!("{other:?}"),
    }
}

fn refusal(line: &str, environment: &[(&str, &str)]) -> String {
    match run(line, environment) {
        Err(ParseError::Settings(error)) => format!("{error:#}"),
        Err(ParseError::CommandLine(error)) => error.to_string(),
        other => panic!("{line}: {other:?}"),
    }
}

/// By the name of each flag: whether it takes a value, its default, and its short form.
fn listed(list: &str) -> BTreeMap<&str, (bool, &str, Option<char>)> {
    let flags = list.lines().map(|line| {
        let (flag, default) = line.split_once(" =").unwrap();
        let (names, kind) = flag.rsplit_once(' ').unwrap();
        let (short, long) = match names.split_once(", ") {
            Some((short, long)) => (short.chars().nth(1), long),
            None => (None, names),
        };
        let long = long.strip_prefix("--").unwrap();
        (long, (kind != "bool", default.trim(), short))
    });
    flags.collect()
}

#[test]
fn every_flag_is_there_with_its_default_and_no_other() {
    let program = program();
    for (name, list) in LISTS {
        let command = program.find_subcommand(name).unwrap();
        let mut listed = listed(list);
        for arg in command.get_arguments().filter(|arg| arg.get_id() != "help") {
            let flag = arg.get_long().unwrap();
            let (takes_value, default, short) = listed
                .remove(flag)
                .unwrap_or_else(|| panic!("{name} has no --{flag}"));
            let must_have = arg.get_num_args().is_none_or(|n| n.min_values() == 1);
            assert_eq!(must_have, takes_value, "{name} --{flag}");
            assert_eq!(arg.get_short(), short, "{name} --{flag}");
            let help = arg.get_help().unwrap().to_string();
            let told = default.is_empty() || help.contains(&format!("[default: {default}]"));
            assert!(told, "{name} --{flag}: {default:?} is not in {help:?}");
        }
        assert!(listed.is_empty(), "{name} lacks {listed:?}");
    }
}

#[test]
fn whatever_is_translated_to_is_a_flag() {
    // What is set is parsed by each test; a default of a misspelt flag would be dropped without a word.
    for (role, flags) in [
        ("server", ""),
        ("agent", "--node-name n --node-ip 10.0.0.1"),
    ] {
        let line = format!("culvert yurt-tunnel-{role} {flags}");
        let invocation = parse(
            line.split_whitespace().map(Into::into),
            &Environment::default(),
        );
        let translated = invocation.unwrap().translated.unwrap();
        let own = Cli::command();
        let own = own.find_subcommand(role).unwrap();
        for (flag, _) in translated.translation.defaults() {
            let exists = own.get_arguments().any(|arg| arg.get_long() == Some(flag));
            assert!(exists, "culvert {role} --{flag}");
        }
    }
}

#[test]
fn without_flags_a_server_is_as_yurt_tunnel_is() {
    let (args, ignored) = server("", &[]);
    assert!(args.kubernetes.cluster.kubernetes && args.kubernetes.cluster.kubeconfig.is_none());
    assert_eq!((args.agent_port, args.meta_port), (10262, 10265));
    assert_eq!(
        (args.https_port(), args.http_port()),
        (Some(10263), Some(10264))
    );
    assert_eq!(args.bind_address, None);
    assert_eq!(args.http_address.unwrap().to_string(), "127.0.0.1");
    assert_eq!(args.meta_address.to_string(), "127.0.0.1");
    assert_eq!(
        args.state_dir.to_str(),
        Some("/var/lib/yurttunnel-server/pki/culvert")
    );
    assert!(args.redirect && args.kubernetes.publish_names && args.names.yurt_tunnel_metrics);
    assert!(!args.kubernetes.approve_certificates);
    assert_eq!(
        args.kubernetes.lease_namespace.as_deref(),
        Some("kube-system")
    );
    assert_eq!(ignored, "");
}

#[test]
fn the_flags_of_the_manifests_are_understood() {
    let flags =
        "--bind-address=10.0.0.5 --insecure-bind-address=10.0.0.5 --proxy-strategy=destHost --v=2";
    let (args, ignored) = server(flags, &[]);
    for address in [
        args.bind_address,
        args.http_address,
        Some(args.meta_address),
        args.kubernetes.relay_address,
    ] {
        assert_eq!(address, Some("10.0.0.5".parse().unwrap()));
    }
    assert_eq!(ignored, "");
    let environment = [NODE[0], NODE[1], ("POD_IP", "10.0.0.1")];
    let (args, ignored) = agent("--node-name=edge-1 --node-ip=10.0.0.1", &environment);
    assert_eq!(args.node_name().unwrap().as_str(), "edge-1");
    assert_eq!(
        args.node_ip,
        ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]
    );
    let kubeconfig = args.cluster.kubeconfig.as_deref();
    assert_eq!(
        kubeconfig.unwrap().to_str(),
        Some("/etc/kubernetes/kubelet.conf")
    );
    assert_eq!(
        args.state_dir.to_str(),
        Some("/var/lib/yurttunnel-agent/pki/culvert")
    );
    assert!(args.server.is_empty() && args.names.yurt_tunnel_metrics);
    assert_eq!(
        (args.meta_address.to_string().as_str(), args.meta_port),
        ("127.0.0.1", 10266)
    );
    assert_eq!(ignored, "");
}

#[test]
fn each_flag_of_the_server_has_its_meaning() {
    let flags = "--kube-config /etc/k --bind-address ::1 --tunnel-agent-connect-port 1 --secure-port=2 \
                 --insecure-port 3 --meta-port 4 --cert-dns-names a.example,,b.example --cert-ips 10.0.0.1,fd00::1, \
                 --cert-dir /certs --enable-iptables=false --enable-dns-controller=F -v 4";
    let (args, ignored) = server(flags, &[]);
    let kubernetes = &args.kubernetes;
    assert_eq!(
        kubernetes.cluster.kubeconfig.as_deref().unwrap().to_str(),
        Some("/etc/k")
    );
    assert_eq!(args.bind_address.unwrap().to_string(), "::1");
    assert_eq!(args.http_address.unwrap().to_string(), "::1");
    assert_eq!(args.meta_address.to_string(), "::1");
    assert_eq!((args.agent_port, args.https_port()), (1, Some(2)));
    assert_eq!((args.http_port(), args.meta_port), (Some(3), 4));
    assert_eq!(kubernetes.cert_dns_names, ["a.example", "b.example"]);
    assert_eq!(kubernetes.cert_ips.len(), 2);
    assert_eq!(args.state_dir.to_str(), Some("/certs/culvert"));
    assert!(!args.redirect && !kubernetes.publish_names);
    for verbosity in ["-v 4", "-v=4", "-v5", "--v=10", "--v 6"] {
        let level = server(verbosity, &[]).0.log.log_level;
        assert_eq!(level.to_string(), "debug", "{verbosity}");
    }
    assert_eq!(args.log.log_level.to_string(), "debug");
    assert_eq!(ignored, "");
}

#[test]
fn each_flag_of_the_agent_has_its_meaning() {
    let flags = "--tunnelserver-addr tunnel.example:31008 --apiserver-addr 10.0.0.9:6443 --meta-host 10.0.0.1 \
                 --meta-port 5 --cert-dir /certs --agent-identifiers ipv4=10.0.0.1&host=edge-1";
    let (args, ignored) = agent(flags, &NODE);
    assert_eq!(args.server[0].to_string(), "tunnel.example:31008");
    assert_eq!(args.cluster.api_server.unwrap().as_str(), "10.0.0.9:6443");
    assert!(args.cluster.kubeconfig.is_none());
    assert_eq!(
        (args.meta_address.to_string().as_str(), args.meta_port),
        ("10.0.0.1", 5)
    );
    assert_eq!(args.state_dir.to_str(), Some("/certs/culvert"));
    assert_eq!(ignored, "");
    let v6 = [("NODE_NAME", "edge-1"), ("NODE_IP", "fd00::1")];
    assert_eq!(agent("", &v6).0.meta_address.to_string(), "::1");
    let (args, ignored) = agent("--kube-config=/k --apiserver-addr=a:1", &NODE);
    assert_eq!(args.cluster.kubeconfig.unwrap().to_str(), Some("/k"));
    assert!(
        ignored.starts_with("--apiserver-addr=a:1: --kube-config"),
        "{ignored}"
    );
}

#[test]
fn what_means_nothing_is_named_in_one_line() {
    let flags = "--iptables-sync-period 30 --dns-sync-period=60 --server-count=3 --proxy-strategy=default \
                 --log_dir=/var/log --logtostderr=false --skip_headers --vmodule=a=1";
    let (_, ignored) = server(flags, &[]);
    for named in [
        "--iptables-sync-period=30: the kernel's tables",
        "--dns-sync-period=60: records",
        "--server-count=3: servers are counted",
        "--proxy-strategy=default: a client",
        "--logtostderr=false, --skip_headers=true, --vmodule=a=1, --log_dir=/var/log: lines go to",
    ] {
        assert!(ignored.contains(named), "{named:?} is not in {ignored:?}");
    }
    // What is the case here, too, needs no word.
    let silent = "--logtostderr --alsologtostderr --server-count=1 --egress-selector-enable=false --cert-ips=";
    assert_eq!(server(silent, &[]).1, "");
    let (_, ignored) = agent(
        "--agent-identifiers=cidr=10.0.0.0/8",
        &[NODE[0], NODE[1], ("POD_IP", "10.1.0.1")],
    );
    assert!(
        ignored.contains("--agent-identifiers=cidr=10.0.0.0/8: "),
        "{ignored}"
    );
    assert!(
        ignored.contains("POD_IP in the environment: the certificate"),
        "{ignored}"
    );
}

#[test]
fn flags_stand_above_the_environment_and_defaults_below_it() {
    let environment = [
        ("CULVERT_AGENT_PORT", "7"),
        ("CULVERT_META_PORT", "8"),
        ("CULVERT_HTTP_ADDRESS", "10.0.0.1"),
        ("CULVERT_STATE_DIR", "/srv"),
        ("CULVERT_APPROVE_CERTIFICATES", "true"),
        ("CULVERT_DIAL_TIMEOUT", "3s"),
        ("CULVERT_YURT_TUNNEL_METRICS", "false"),
    ];
    let (args, _) = server("--tunnel-agent-connect-port=9", &environment);
    assert_eq!((args.agent_port, args.meta_port), (9, 8));
    assert_eq!(args.http_address.unwrap().to_string(), "10.0.0.1");
    assert_eq!(args.state_dir.to_str(), Some("/srv"));
    assert!(args.kubernetes.approve_certificates && !args.names.yurt_tunnel_metrics);
    assert_eq!(args.session.dial_timeout, Duration::from_secs(3));
}

#[test]
fn the_last_of_a_flag_counts_and_an_empty_one_sets_nothing() {
    let (args, _) = server(
        "--meta-port 1 --meta-port=2 --enable-iptables=false --enable-iptables",
        &[],
    );
    assert_eq!(args.meta_port, 2);
    assert!(args.redirect);
    let (args, _) = server("--kube-config= --insecure-bind-address= --cert-dir=", &[]);
    assert!(args.kubernetes.cluster.kubeconfig.is_none());
    assert_eq!(args.http_address.unwrap().to_string(), "127.0.0.1");
    let (args, _) = agent(
        "--node-name= --node-ip= --tunnelserver-addr= --agent-identifiers=",
        &NODE,
    );
    assert_eq!(args.node_name().unwrap().as_str(), "edge-1");
}

#[test]
fn the_programs_own_name_is_the_subcommand() {
    for name in ["/usr/local/bin/yurt-tunnel-agent", "yurt-tunnel-agent"] {
        let (command, _) = run(&format!("{name} --meta-port 3"), &NODE).unwrap();
        assert!(matches!(command, Command::Agent(args) if args.meta_port == 3));
    }
    let refused = refusal("/bin/yurt-tunnel-server agent", &[]);
    assert!(refused.contains("unexpected argument 'agent'"), "{refused}");
    for version in [
        "yurt-tunnel-server --version",
        "culvert yurt-tunnel-agent --version=true",
    ] {
        assert!(
            matches!(run(version, &[]), Err(ParseError::Version(_))),
            "{version}"
        );
    }
}

/// Flags of the server, and what their refusal must say.
const BAD_SERVERS: &[(&str, &str)] = &[
    (
        "--egress-selector-enable",
        "--egress-selector-enable=true: kube-apiserver's egress selector is not served",
    ),
    (
        "--proxy-strategy=defaultRoute",
        "--proxy-strategy \"defaultRoute\" is unknown: use destHost",
    ),
    (
        "--cert-ips=10.0.0.1,a.example",
        "--cert-ips: \"a.example\" is not an address: correct it, or put it into --cert-dns-names",
    ),
    (
        "--bind-address=",
        "--bind-address is empty: give an address",
    ),
    (
        "--bind-address=eth0",
        "--bind-address eth0: give an address",
    ),
    (
        "--insecure-bind-address=localhost",
        "--insecure-bind-address localhost: give an address",
    ),
    (
        "--secure-port=https",
        "--secure-port \"https\" is not a port: give a number from 1 to 65535",
    ),
    ("--insecure-port=0", "--insecure-port \"0\" is not a port"),
    ("--meta-port=", "--meta-port \"\" is not a port"),
    (
        "--secure-port=10262",
        "yurt-tunnel-server means `culvert server --kubernetes --https-port=10262`: --agent-port and --https-port \
         are both 10262: choose different ports",
    ),
    (
        "--server-count=two",
        "invalid value 'two' for '--server-count <NUMBER>'",
    ),
    (
        "--enable-iptables=yes",
        "invalid value 'yes' for '--enable-iptables[=<BOOL>]': it is neither true nor false",
    ),
    ("--enable-iptables false", "unexpected argument 'false'"),
    (
        "-vmodule=a=1",
        "invalid value 'module=a=1' for '--v <NUMBER>'",
    ),
    ("--agent-port=1", "unexpected argument '--agent-port'"),
];

/// The same of the agent.
const BAD_AGENTS: &[(&str, &str)] = &[
    (
        "--node-ip=10.0.0.1,10.0.0.2",
        "--node-ip \"10.0.0.1,10.0.0.2\": give one address",
    ),
    (
        "--node-name=Edge_1",
        "--node-name \"Edge_1\": give the name of the Node object",
    ),
    (
        "--tunnelserver-addr=http://a",
        "--tunnelserver-addr http://a",
    ),
    (
        "--apiserver-addr=https://a:6443",
        "--apiserver-addr https://a:6443: give host and port",
    ),
    (
        "--agent-identifiers=host=edge-2",
        "--agent-identifiers: host=edge-2 is not what --node-name says",
    ),
    (
        "--agent-identifiers=ipv4=10.0.0.2,host=edge-1",
        "ipv4=10.0.0.2 is not what --node-ip says",
    ),
    (
        "--agent-identifiers=uid=1",
        "--agent-identifiers: \"uid\" is of no use",
    ),
    (
        "--agent-identifiers=edge-1",
        "--agent-identifiers: \"edge-1\" is none: write host=NAME",
    ),
];

#[test]
fn refusals_name_flag_value_cause_and_the_way_out() {
    for (program, bad) in [("server", BAD_SERVERS), ("agent", BAD_AGENTS)] {
        for (flags, said) in bad {
            let refused = refusal(&format!("culvert yurt-tunnel-{program} {flags}"), &NODE);
            assert!(refused.contains(said), "{flags}: {refused}");
        }
    }
    let nameless = refusal("culvert yurt-tunnel-agent --node-ip=10.0.0.1", &[]);
    assert!(
        nameless.contains("neither --node-name nor NODE_NAME says who this node is: set one"),
        "{nameless}"
    );
    let bad_variable = refusal("culvert yurt-tunnel-agent", &[NODE[0], ("NODE_IP", "edge")]);
    assert!(
        bad_variable.contains("NODE_IP \"edge\": give one address"),
        "{bad_variable}"
    );
}
