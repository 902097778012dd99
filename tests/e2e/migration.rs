//! What a server of Yurt-Tunnel's leaves in iptables: found, told, lived with, and removed on request.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use culvert_tests::{Lab, Launch, NetNs, command, programs, until};

use crate::stage::{NODE, PATIENCE, Stage, end_of};

const IPTABLES: [&str; 4] = [
    "iptables-nft",
    "iptables-legacy",
    "ip6tables-nft",
    "ip6tables-legacy",
];

/// Makes the rules by the commands of Yurt-Tunnel 1.5.0, in its order.
fn make_rules(namespace: &NetNs, iptables: &str) {
    let (own, server, bits) = if iptables.starts_with("ip6") {
        (["::1", "fd00:77::1"], "[fd00:77::1]", 128)
    } else {
        (["127.0.0.1", "10.77.0.1"], "10.77.0.1", 32)
    };
    let make = |words: &str, comment: &str, rest: &str| {
        let mut program = namespace.command(iptables);
        program
            .args(["-w", "10", "-t", "nat"])
            .args(words.split(' '));
        if !comment.is_empty() {
            program.args(["-m", "comment", "--comment", comment]);
        }
        command::output_of(program.args(rest.split_whitespace()), "").unwrap();
    };
    make("-N TUNNEL-PORT", "", "");
    make(
        "-I OUTPUT -p tcp",
        "yurttunnel server port",
        "-j TUNNEL-PORT",
    );
    for (port, to) in [("10250", "10263"), ("10255", "10264")] {
        make(&format!("-N TUNNEL-PORT-{port}"), "", "");
        let jump = format!("-I TUNNEL-PORT -p tcp --dport {port}");
        make(
            &jump,
            &format!("jump to port {port}"),
            &format!("-j TUNNEL-PORT-{port}"),
        );
        for ip in own {
            let rest = format!("--dport {port} -d {ip}/{bits} -j RETURN");
            let words = format!("-I TUNNEL-PORT-{port} -p tcp");
            make(&words, "return request to access node directly", &rest);
        }
        let rest = format!("--dport {port} -j DNAT --to-destination {server}:{to}");
        let words = format!("-A TUNNEL-PORT-{port} -p tcp");
        make(&words, "dnat to tunnel for access node", &rest);
    }
}

/// Rules of somebody else's.
fn make_others(namespace: &NetNs, iptables: &str) {
    for line in [
        "-N KUBE-SERVICES",
        "-A OUTPUT -j KUBE-SERVICES",
        "-A KUBE-SERVICES -p tcp --dport 10250 -j RETURN",
    ] {
        let mut program = namespace.command(iptables);
        program
            .args(["-w", "10", "-t", "nat"])
            .args(line.split(' '));
        command::output_of(&mut program, "").unwrap();
    }
}

/// The rules of table `nat`, without times and counters.
fn saved(namespace: &NetNs, iptables: &str) -> Vec<String> {
    let mut save = namespace.command(&format!("{iptables}-save"));
    let saved = command::output_of(save.args(["-t", "nat"]), "").unwrap();
    let rules = saved.lines().filter(|line| !line.starts_with('#'));
    let rules = rules.map(|line| line.split(" [").next().unwrap().to_owned());
    rules.collect()
}

fn migrate(namespace: &NetNs, verb: &str) -> Result<String, String> {
    let culvert = Launch::new(namespace, programs::culvert().unwrap());
    end_of(&culvert.words("migrate").arg(verb))
}

#[test]
fn rules_are_found_and_removed_in_either_place_and_nothing_else_is_touched() {
    let lab = Lab::alone().unwrap();
    let control = lab.control();
    let nothing = migrate(control, "check").unwrap();
    assert!(
        nothing.contains("no iptables rules of Yurt-Tunnel's"),
        "{nothing}"
    );
    for iptables in IPTABLES {
        make_others(control, iptables);
        let before = saved(control, iptables);
        make_rules(control, iptables);
        let shown = migrate(control, "check").unwrap_err();
        let (backend, family) = match iptables {
            "iptables-nft" => ("nf_tables", "IPv4"),
            "iptables-legacy" => ("legacy", "IPv4"),
            "ip6tables-nft" => ("nf_tables", "IPv6"),
            _ => ("legacy", "IPv6"),
        };
        let place =
            format!("{backend}, {family}: TUNNEL-PORT, TUNNEL-PORT-10250, TUNNEL-PORT-10255");
        for told in [
            place.as_str(),
            "--to-destination",
            "they lead nowhere",
            "culvert migrate clean",
        ] {
            assert!(shown.contains(told), "{told:?} is not in {shown}");
        }
        assert!(!shown.contains("KUBE-SERVICES"), "{shown}");
        let removed = migrate(control, "clean").unwrap();
        let told = format!("{backend}, {family}: removed 9 rules and 3 chains");
        assert!(removed.contains(&told), "{removed}");
        assert_eq!(saved(control, iptables), before, "{iptables}");
        migrate(control, "check").unwrap();
        migrate(control, "clean").unwrap();
    }
    // In all places at once.
    let before = IPTABLES.map(|iptables| saved(control, iptables));
    for iptables in IPTABLES {
        make_rules(control, iptables);
    }
    assert_eq!(
        migrate(control, "clean")
            .unwrap()
            .matches("removed 9 rules")
            .count(),
        4
    );
    assert_eq!(IPTABLES.map(|iptables| saved(control, iptables)), before);
}

#[test]
fn a_rule_of_somebody_else_in_their_chains_stays_and_is_named() {
    let lab = Lab::alone().unwrap();
    let control = lab.control();
    make_rules(control, "iptables-nft");
    let foreign = "-A TUNNEL-PORT-10250 -p tcp -m tcp --dport 10250 -j RETURN";
    let mut add = control.command("iptables-nft");
    add.args(["-t", "nat"]).args(foreign.split(' '));
    command::output_of(&mut add, "").unwrap();
    let refused = migrate(control, "clean").unwrap_err();
    assert!(
        refused.contains(&format!("not Yurt-Tunnel's, and left: {foreign}")),
        "{refused}"
    );
    assert!(refused.contains("1 chains stay"), "{refused}");
    let left = saved(control, "iptables-nft");
    let theirs: Vec<_> = left
        .iter()
        .filter(|line| line.contains("TUNNEL-PORT"))
        .collect();
    assert_eq!(theirs, [":TUNNEL-PORT-10250 -", foreign]);
    let shown = migrate(control, "check").unwrap_err();
    assert!(
        shown.contains(&format!("not Yurt-Tunnel's: {foreign}")),
        "{shown}"
    );
}

#[test]
fn nothing_is_removed_while_its_server_runs() {
    let stage = Stage::new();
    make_rules(stage.control(), "iptables-nft");
    let server = stage.path("yurt-tunnel-server");
    fs::copy(programs::probe().unwrap(), &server).unwrap();
    let server =
        Launch::new(stage.control(), server).words("echo --bind 127.0.0.1:10263 --seconds 60");
    let mut server = server.start().unwrap();
    server.wait_for_line("listening", PATIENCE).unwrap();
    let before = saved(stage.control(), "iptables-nft");
    let refused = migrate(stage.control(), "clean").unwrap_err();
    assert!(
        refused.contains(&format!("runs on this machine (process {})", server.pid())),
        "{refused}"
    );
    assert_eq!(saved(stage.control(), "iptables-nft"), before);
    server.kill().unwrap();
    migrate(stage.control(), "clean").unwrap();
}

/// A server of Yurt-Tunnel's, as far as clients are concerned: it answers with their own bytes.
fn answer_in_its_place(stage: &Stage) -> Arc<AtomicUsize> {
    let listener = stage
        .control()
        .run(|| TcpListener::bind("10.77.0.1:10263").unwrap());
    let clients = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&clients);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || {
                let (mut client, mut bytes) = (client, [0; 64]);
                while let Ok(length @ 1..) = client.read(&mut bytes) {
                    let _ = client.write_all(&bytes[..length]);
                }
            });
        }
    });
    clients
}

#[test]
fn beside_yurt_tunnel_nodes_with_an_agent_of_culverts_are_carried_and_others_left_to_it() {
    let stage = Stage::with_edges(2);
    let control = stage.control();
    make_rules(control, "iptables-nft");
    // Rules of output see only what has a route.
    let uplink = control.ip("-o link show type veth").unwrap();
    let uplink = uplink.split([':', '@']).nth(1).unwrap().trim().to_owned();
    control
        .ip(&format!("route add 10.78.0.0/16 dev {uplink}"))
        .unwrap();
    let yurt_tunnels = answer_in_its_place(&stage);
    let _target = stage.target("--bind 10.78.0.11:10250");
    let flags = "--offline-nodes bypass --startup-grace 0s --gate-policy bypass";
    let mut server = stage.server(flags);
    let said = server.output();
    let told = "Yurt-Tunnel's iptables rules are on this machine";
    assert_eq!(said.matches(told).count(), 1, "{said}");
    let mut other = stage.agent(1, "");
    assert!(other.stop(PATIENCE).unwrap().success());
    let moved = stage.agent(0, "");
    let count = || yurt_tunnels.load(Ordering::Relaxed);
    // Yurt-Tunnel carries until the table has the session.
    until("culvert carries", PATIENCE, || {
        let before = count();
        stage.works(NODE);
        Ok((count() == before).then_some(()))
    })
    .unwrap();
    let before = count();
    for _ in 0..5 {
        stage.works(NODE);
    }
    assert_eq!(count(), before, "carried by culvert");
    let not_moved = "10.78.0.12:10250";
    stage.eventually_works(not_moved);
    let before = count();
    stage.works(not_moved);
    assert_eq!(count(), before + 1, "carried by Yurt-Tunnel");
    // A node whose agent goes again is Yurt-Tunnel's again.
    let mut moved = moved;
    assert!(moved.stop(PATIENCE).unwrap().success());
    stage.until_connected(0, false);
    let before = count();
    stage.eventually_works(NODE);
    assert!(count() > before);
    let status = stage.site.status_text().unwrap();
    let shown = "iptables    rules of Yurt-Tunnel's: nf_tables, IPv4: TUNNEL-PORT, TUNNEL-PORT-10250, TUNNEL-PORT-10255";
    assert!(status.contains(shown), "{status}");
    assert!(status.contains("host tuple"), "{status}");

    migrate(control, "clean").unwrap();
    assert!(server.stop(PATIENCE).unwrap().success());
    let server = stage.server("");
    assert!(!server.output().contains(told), "{}", server.output());
    let status = stage.site.status_text().unwrap();
    assert!(!status.contains("Yurt-Tunnel"), "{status}");
    assert!(status.contains("host 127.64.0.0/15"), "{status}");
}
