use std::{net::IpAddr, time::Duration};

use clap::Parser;

use super::*;
use crate::{
    model::{GatePolicy, NodeNetworks},
    pki::{new_key, request},
    standalone::{Admission, Enrolling, NewToken},
};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: NodeArgs,
}

struct Shell {
    dir: tempfile::TempDir,
    state: State,
}

impl Shell {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = State::create(dir.path(), OffsetDateTime::now_utc()).unwrap();
        Self { dir, state }
    }

    fn run(&self, line: &str) -> anyhow::Result<(String, String)> {
        let words = ["node"].into_iter().chain(line.split_whitespace());
        let state_dir = self.dir.path().to_str().unwrap();
        let args = Cli::try_parse_from(words.chain(["--state-dir", state_dir]))?;
        let (mut out, mut remarks) = (Vec::new(), Vec::new());
        execute(
            &args.args,
            OffsetDateTime::now_utc(),
            &mut out,
            &mut remarks,
        )?;
        Ok((String::from_utf8(out)?, String::from_utf8(remarks)?))
    }

    fn token(&self, node: &str, address: &str) -> crate::standalone::JoinToken {
        let new = NewToken {
            node: node.parse().unwrap(),
            addresses: vec![address.parse().unwrap()],
            gate_policy: Some(GatePolicy::Refuse),
            ttl: Duration::from_hours(1),
        };
        self.state
            .create_token(new, OffsetDateTime::now_utc())
            .unwrap()
            .0
    }

    fn enrol(&self, node: &str, address: &str) {
        let admission = Admission {
            state: &self.state,
            certificate_ttl: Duration::from_hours(1),
            node_networks: &NodeNetworks::default(),
            is_server_address: &|_: IpAddr| false,
        };
        let csr = request(&new_key().unwrap()).unwrap();
        let asked = Enrolling {
            token: &self.token(node, address).reveal(),
            node: &node.parse().unwrap(),
            csr_der: &csr,
            proposed: &[],
        };
        admission.enrol(&asked, OffsetDateTime::now_utc()).unwrap();
    }
}

#[test]
fn list_shows_the_registered_nodes() {
    let shell = Shell::new();
    shell.enrol("edge-1", "10.0.0.1");
    shell.enrol("edge-2", "fd00::2");
    let (table, _) = shell.run("list").unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|row| row.split_whitespace().collect())
        .collect();
    assert_eq!(rows[1][..3], ["edge-1", "10.0.0.1", "refuse"]);
    assert_eq!(rows[2][..3], ["edge-2", "fd00::2", "refuse"]);
    let (json, _) = shell.run("list --json").unwrap();
    let nodes: Vec<Registration> = serde_json::from_str(&json).unwrap();
    assert_eq!(nodes, shell.state.registrations().unwrap());
}

#[test]
fn remove_names_the_tokens_that_could_bring_the_node_back() {
    let shell = Shell::new();
    shell.enrol("edge-1", "10.0.0.1");
    let open = shell.token("edge-1", "10.0.0.1");
    let (_, remarks) = shell.run("remove edge-1").unwrap();
    let hint = format!("culvert token revoke {}", open.id());
    assert!(
        remarks.contains(&hint) && remarks.lines().count() == 2,
        "{remarks}"
    );
    assert!(shell.state.registrations().unwrap().is_empty());
    let error = shell.run("remove edge-1").unwrap_err().to_string();
    assert!(
        error.contains("no node edge-1") && error.contains("culvert node list"),
        "{error}"
    );
}
