use clap::Parser;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: TokenArgs,
}

struct Shell {
    dir: tempfile::TempDir,
}

impl Shell {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    /// What `culvert token <line>` prints to stdout and stderr.
    fn run(&self, line: &str) -> anyhow::Result<(String, String)> {
        let state_dir = self.dir.path().join("state");
        let words = ["token"].into_iter().chain(line.split_whitespace());
        let args = Cli::try_parse_from(words.chain(["--state-dir", state_dir.to_str().unwrap()]))?;
        let (mut out, mut remarks) = (Vec::new(), Vec::new());
        execute(
            &args.args,
            None,
            OffsetDateTime::now_utc(),
            &mut out,
            &mut remarks,
        )?;
        Ok((String::from_utf8(out)?, String::from_utf8(remarks)?))
    }
}

#[test]
fn create_prints_a_command_for_the_node_with_the_token_on_its_standard_input() {
    let shell = Shell::new();
    let (out, remarks) = shell
        .run("create --node edge-1 --address 10.0.0.1,fd00::1 --server cloud.example")
        .unwrap();
    assert_eq!(remarks, "");
    let [command, token, "END"] = out.lines().collect::<Vec<_>>()[..] else {
        panic!("{out}")
    };
    let words: Vec<&str> = command.split_whitespace().collect();
    let state = State::open(&shell.dir.path().join("state")).unwrap();
    let [(id, _)] = &state.tokens().unwrap()[..] else {
        panic!("one token expected")
    };
    let [
        before @ ..,
        "--ca-hash",
        hash,
        "--token-file",
        "-",
        "<<'END'",
    ] = &words[..]
    else {
        panic!("{out}")
    };
    let start = "culvert agent --server cloud.example:10262 --node-name edge-1";
    assert_eq!(before.join(" "), start);
    assert!(token.starts_with(&format!("{id}.")), "{out}");
    assert!(!command.contains(&id.to_string()), "{command}");
    assert_eq!(*hash, state.ca().pin().to_string());
}

#[test]
fn list_shows_everything_but_the_secret() {
    let shell = Shell::new();
    let (line, remarks) = shell
        .run("create --node edge-1 --server [fd00::1]:443")
        .unwrap();
    assert!(
        remarks.contains("warning: the token names no address") && remarks.contains("--address IP")
    );
    let token = line
        .split_whitespace()
        .find(|word| word.len() == 37)
        .unwrap();
    let (id, secret) = token.split_once('.').unwrap();
    for list in ["list", "list --json"] {
        let (out, _) = shell.run(list).unwrap();
        assert!(
            out.contains(id) && out.contains("edge-1") && out.contains("open"),
            "{out}"
        );
        assert!(!out.contains(secret), "{out}");
    }
    shell.run(&format!("revoke {id}")).unwrap();
    assert!(shell.run("list").unwrap().0.contains("revoked"));
}

#[test]
fn what_cannot_be_done_says_why_and_what_can() {
    let shell = Shell::new();
    let error = |line: &str| format!("{:#}", shell.run(line).unwrap_err());
    assert!(error("list").contains("no culvert state in"));
    shell.run("create --node edge-1 --server a").unwrap();
    for (line, parts) in [
        (
            "revoke abcdefghij",
            ["no token abcdefghij", "culvert token list"],
        ),
        ("revoke ABC", ["not a token id", "culvert token list"]),
        (
            "create --node Edge --server a",
            ["not a node name", "lower-case"],
        ),
        ("create --server a", ["--node", "required"]),
        (
            "create --node e --server a --address x",
            ["--address", "invalid IP address"],
        ),
        (
            "create --node e --server a --address 127.0.0.1",
            ["--address", "loopback"],
        ),
        ("create --node e --server a --ttl soon", ["--ttl", "soon"]),
        (
            "create --node e --server a --ttl 0s",
            ["--ttl", "at least one second"],
        ),
        ("create --node e --server a:b", ["--server", "HOST:PORT"]),
        (
            "create --node e --server a --gate-policy open",
            ["bypass", "refuse"],
        ),
    ] {
        let text = error(line);
        for part in parts {
            assert!(text.contains(part), "{line}: {text} lacks {part}");
        }
    }
}
