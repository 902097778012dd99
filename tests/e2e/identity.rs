//! Who is let in. Whoever is not hears why, and what to do.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};

use culvert_tests::{Launch, scale, until};

use time::OffsetDateTime;

use crate::resets::ending;
use crate::stage::{NODE, PATIENCE, Stage, end_of, node, without_token};

/// For an agent that shares its network with another.
const OTHER_META: &str = "--meta-port 10267";

/// An agent that must not get an identity: what it says at its end.
pub(crate) fn refused(stage: &Stage, directory: &str, join: &str) -> String {
    let agent = stage.site.agent_in(directory, 0, join);
    end_of(&agent.words(OTHER_META)).unwrap_err()
}

#[track_caller]
pub(crate) fn says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
}

/// A join command with another token, which differs in its last character.
fn mistyped(stage: &Stage, join: &str) -> String {
    let (command, file) = join.rsplit_once(' ').unwrap();
    let other = stage.site.directory().join("mistyped-token");
    let token = spoilt(
        &format!("token {}", fs::read_to_string(file).unwrap()),
        "token",
    );
    fs::write(&other, token.rsplit(' ').next().unwrap()).unwrap();
    format!("{command} {}", other.display())
}

/// The words of a join command, one of them changed in its last character.
fn spoilt(join: &str, flag: &str) -> String {
    let mut words: Vec<_> = join.split(' ').map(str::to_owned).collect();
    let value = 1 + words.iter().position(|word| word == flag).unwrap();
    let last = words[value].pop().unwrap();
    words[value].push(if last == '2' { '3' } else { '2' });
    words.join(" ")
}

#[test]
fn a_token_enrols_one_agent_once_and_only_the_right_one() {
    let stage = Stage::new();
    let mut server = stage.server("");

    let join = stage.token(0, "");
    says(
        &refused(&stage, "mistyped", &mistyped(&stage, &join)),
        &[
            "the token is not valid on this server",
            "culvert token create",
        ],
    );
    says(
        &refused(&stage, "wrong-ca", &spoilt(&join, "--ca-hash")),
        &["the server 10.77.0.1:10262 is not the right one"],
    );
    says(
        &refused(&stage, "renamed", &join.replace(&node(0), "edge-9")),
        &["the token enrols node edge-1", "calls itself edge-9"],
    );
    let _agent = stage.up(0, &join);
    says(
        &refused(&stage, "another", &join),
        &["the token was already used", "culvert token create"],
    );
    server
        .wait_for_line("refused a certificate", PATIENCE)
        .unwrap();
    assert_eq!(stage.status().nodes.len(), 1);
}

#[test]
fn an_expired_and_a_revoked_token_enrol_nobody() {
    let stage = Stage::new();
    let _server = stage.server("");
    let tokens = || -> serde_json::Value {
        serde_json::from_str(&stage.manage("token list --json").unwrap()).unwrap()
    };

    let expired = stage.token(0, "--ttl 1s");
    until("the token expires", PATIENCE, || {
        Ok((tokens()[0]["status"] == "expired").then_some(()))
    })
    .unwrap();
    says(
        &refused(&stage, "late", &expired),
        &["the token expired at", "culvert token create"],
    );

    let revoked = stage.token(0, "");
    let open = tokens();
    let mut open = open.as_array().unwrap().iter();
    let open = open.find(|token| token["status"] == "open").unwrap();
    let id = open["id"].as_str().unwrap();
    stage.manage(&format!("token revoke {id}")).unwrap();
    says(
        &refused(&stage, "revoked", &revoked),
        &["the token was revoked", "culvert token create"],
    );
    assert_eq!(stage.status().nodes.len(), 0);
}

#[test]
fn a_certificate_of_a_foreign_ca_is_worth_nothing_in_either_direction() {
    let stage = Stage::new();
    let (mut server, mut agent) = stage.culvert("", "");
    agent.stop(PATIENCE).unwrap();
    server.stop(PATIENCE).unwrap();
    // Another server, with a CA of its own, at the same address.
    fs::rename(stage.site.server_state(), stage.path("old-server")).unwrap();
    // Strangers are logged now and then only, unless one asks for more.
    let mut other = stage.server("--log-level info,tunnel_user::tunnel::server=debug");

    let mut agent = stage.site.agent(0, &without_token(0)).start().unwrap();
    let line = agent.wait_for_line("no session", PATIENCE).unwrap();
    says(&line, &["10.77.0.1:10262", "certificate"]);
    // Who does not verify the server is not let in by it either.
    let foreign = stage.path("agent0/state/agent.pem");
    let said = call(
        &stage,
        CONNECT,
        &["--cert", foreign.to_str().unwrap(), "-H", "agentid: edge-1"],
    );
    assert!(!said.contains("grpc-status: 0"), "{said}");
    let line = other
        .wait_for(PATIENCE, "why the certificate is refused", |line| {
            line.contains("TLS handshake failed") && line.contains("UnknownIssuer")
        })
        .unwrap();
    says(&line, &["peer="]);
    assert_eq!(stage.status().sessions.len(), 0);
}

#[test]
fn a_removed_node_loses_its_connections_its_capture_and_its_agent() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let (_server, mut agent) = stage.culvert("", "");
    let (client, _accepted) = stage.pair(&target);
    stage.manage(&format!("node remove {}", node(0))).unwrap();
    assert_eq!(ending(&client), Err(ErrorKind::ConnectionReset));
    stage.eventually_fails(NODE, "connect ENETUNREACH");
    let line = agent.wait_for_line("no session", PATIENCE).unwrap();
    says(
        &line,
        &[
            "node edge-1 is not among the nodes of this server",
            "new token",
        ],
    );
    let status = stage.status();
    assert_eq!((status.nodes.len(), status.sessions.len()), (0, 0));

    // The way out that it names.
    agent.stop(PATIENCE).unwrap();
    let _agent = stage.agent(0, "");
    stage.pair(&target);
}

#[test]
fn a_newer_enrolment_supersedes_the_older_one() {
    let stage = Stage::new();
    let _target = stage.target(&format!("--bind {NODE}"));
    let (_server, mut old) = stage.culvert("", "");
    old.forget_output();
    let join = stage.token(0, "");
    // The same node, set up anew: its old agent still runs somewhere.
    let mut new = stage
        .site
        .agent_in("reinstalled", 0, &join)
        .words(OTHER_META)
        .start()
        .unwrap();
    new.wait_for_line("session established", PATIENCE).unwrap();
    let line = old.wait_for_line("no session", PATIENCE).unwrap();
    says(&line, &["node edge-1 was enrolled anew by another machine"]);
    stage.works(NODE);
    assert_eq!(stage.status().sessions.len(), 1);
}

#[test]
fn certificates_are_renewed_without_restart_and_the_token_is_never_needed_again() {
    let stage = Stage::new();
    let target = stage.listen(NODE);
    let seconds = scale::count(20, 8, 40);
    let flags = format!("--agent-certificate-ttl {seconds}s");
    let (_server, mut agent) = stage.culvert(&flags, "");
    let (mut client, mut accepted) = stage.pair(&target);
    let first = expiry(&stage);
    agent
        .wait_for_line("renewed the agent's certificate", PATIENCE)
        .unwrap();
    until("the first certificate is over", PATIENCE, || {
        Ok((stage.agent_status(0).reported_at > first).then_some(()))
    })
    .unwrap();
    assert!(expiry(&stage) > first);
    client.write_all(b"open all the time").unwrap();
    accepted.read_exact(&mut [0; 17]).unwrap();
    stage.pair(&target);

    // A new session with the new certificate.
    agent.kill().unwrap();
    let mut agent = stage.agent_again(0, "");
    stage.pair(&target);
    // And once more, by itself.
    agent
        .wait_for_line("renewed the agent's certificate", PATIENCE)
        .unwrap();
}

/// When the certificate that the agent uses now is over.
fn expiry(stage: &Stage) -> OffsetDateTime {
    let mut certificates = stage.agent_status(0).certificates.into_iter();
    let own = certificates.find(|certificate| certificate.name == "agent");
    own.unwrap().expires_at
}

pub(crate) const CONNECT: &str = "/AgentService/Connect";

/// Makes a gRPC call as a stranger would, without a message unless `more` has one, and returns
/// everything that curl saw.
pub(crate) fn call(stage: &Stage, path: &str, more: &[&str]) -> String {
    let curl = Launch::new(stage.edge(), "curl")
        .words("-ksv --http2 --max-time 10 --noproxy * -X POST")
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers"])
        .args(more)
        .arg(format!("https://10.77.0.1:10262{path}"));
    match end_of(&curl) {
        Ok(said) | Err(said) => said,
    }
}
