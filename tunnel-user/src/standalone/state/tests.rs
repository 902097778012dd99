use std::{fs, os::unix::fs::MetadataExt as _};

use super::*;
use crate::standalone::{
    NewToken, TokenError,
    testing::{TestState, now},
};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn state_dir(test: &TestState) -> PathBuf {
    test.dir.path().join("state")
}

fn new_token(node: &str, address: &str) -> NewToken {
    NewToken {
        node: node.parse().unwrap(),
        addresses: vec![address.parse().unwrap()],
        gate_policy: None,
        ttl: std::time::Duration::from_hours(1),
    }
}

#[test]
fn the_ca_is_made_once_and_everything_is_private() {
    let test = TestState::new();
    let dir = state_dir(&test);
    test.token("edge-1", &["10.0.0.1"]);
    let again = State::create(&dir, now()).unwrap();
    assert_eq!(again.ca().pin(), test.state.ca().pin());
    assert_eq!(State::open(&dir).unwrap().ca().pin(), again.ca().pin());
    for sub in ["", "tokens", "nodes"] {
        assert_eq!(mode(&dir.join(sub)), 0o700, "{sub}");
    }
    let token = fs::read_dir(dir.join("tokens")).unwrap().next().unwrap();
    for file in [
        dir.join("ca.key"),
        dir.join("ca.pem"),
        token.unwrap().path(),
    ] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn two_processes_that_begin_at_once_agree_on_one_ca() {
    let dir = tempfile::tempdir().unwrap();
    let begin = || State::create(dir.path(), now()).unwrap().ca().pin();
    let pins = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(begin)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert!(pins.iter().all(|pin| *pin == pins[0]), "{pins:?}");
}

#[test]
fn a_damaged_ca_is_named_and_never_replaced() {
    for (file, content) in [("ca.key", "rubbish"), ("ca.pem", "rubbish"), ("ca.key", "")] {
        let test = TestState::new();
        let path = state_dir(&test).join(file);
        fs::write(&path, content).unwrap();
        let error = State::create(&state_dir(&test), now()).err().unwrap();
        let message = chain(&error);
        assert!(message.contains(path.to_str().unwrap()), "{message}");
        assert!(
            message.contains("backup") && message.contains("enrol anew"),
            "{message}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

#[test]
fn a_ca_with_the_key_of_another_is_refused() {
    let (test, other) = (TestState::new(), TestState::new());
    let key = state_dir(&other).join("ca.key");
    fs::copy(key, state_dir(&test).join("ca.key")).unwrap();
    let error = State::open(&state_dir(&test)).err().unwrap();
    assert!(
        chain(&error).contains("does not belong to the CA certificate"),
        "{error}"
    );
}

#[test]
fn half_a_ca_is_named_and_never_completed() {
    for (missing, left) in [("ca.key", "ca.pem"), ("ca.pem", "ca.key")] {
        let test = TestState::new();
        let dir = state_dir(&test);
        fs::remove_file(dir.join(missing)).unwrap();
        let message = State::create(&dir, now()).err().unwrap().to_string();
        assert!(
            message.contains(dir.join(missing).to_str().unwrap()),
            "{message}"
        );
        assert!(message.contains("backup"), "{message}");
        assert!(!dir.join(missing).exists() && dir.join(left).exists());
    }
}

#[test]
fn a_state_that_is_not_there_is_an_error_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().join("none"), dir.path().to_owned()] {
        let message = State::open(&path).err().unwrap().to_string();
        assert!(
            message.contains(path.to_str().unwrap()) && message.contains("--state-dir"),
            "{message}"
        );
    }
}

#[test]
fn access_of_others_is_taken_away() {
    use std::os::unix::fs::PermissionsExt as _;
    let test = TestState::new();
    let dir = state_dir(&test);
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(dir.join("ca.key"), fs::Permissions::from_mode(0o644)).unwrap();
    State::open(&dir).unwrap();
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("ca.key")), 0o600);
}

#[test]
fn a_directory_that_others_use_is_not_taken_from_them() {
    use std::os::unix::fs::PermissionsExt as _;
    let shared = tempfile::tempdir().unwrap();
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(shared.path().join("somebody's"), "").unwrap();
    for opened in [
        State::create(shared.path(), now()),
        State::open(shared.path()),
    ] {
        let message = opened.err().unwrap().to_string();
        assert!(message.contains("--state-dir"), "{message}");
    }
    assert_eq!(mode(shared.path()), 0o1777);
    assert_eq!(fs::read_dir(shared.path()).unwrap().count(), 1);
}

#[test]
fn a_link_or_a_pipe_among_the_records_is_left_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let test = TestState::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("passwd");
    fs::write(&file, "{}").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let nodes = state_dir(&test).join("nodes");
    std::os::unix::fs::symlink(&file, nodes.join("link.json")).unwrap();
    let pipe = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        nodes.join("pipe.json"),
        pipe,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    assert_eq!(test.state.registrations().unwrap().len(), 0);
    assert_eq!(mode(&file), 0o644);
}

#[test]
fn what_belongs_to_another_user_is_refused() {
    let test = TestState::new();
    // Only root can give a file away; to everybody else the root directory is a foreign one.
    let (refused, foreign) = if rustix::process::geteuid().is_root() {
        let key = state_dir(&test).join("ca.key");
        std::os::unix::fs::chown(&key, Some(65_534), None).unwrap();
        (State::open(&state_dir(&test)), key)
    } else {
        (State::open(Path::new("/")), PathBuf::from("/"))
    };
    let message = refused.err().unwrap().to_string();
    for part in [
        foreign.to_str().unwrap(),
        "belongs to user",
        "chown",
        "--state-dir",
    ] {
        assert!(message.contains(part), "{message} lacks {part}");
    }
}

#[test]
fn a_file_in_the_place_of_the_directory_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state");
    fs::write(&file, "").unwrap();
    let message = chain(&State::create(&file, now()).err().unwrap());
    assert!(message.contains(file.to_str().unwrap()), "{message}");
}

#[test]
fn an_address_of_another_node_or_no_nodes_address_is_refused_at_once() {
    let test = TestState::new();
    let token = test.token("edge-1", &["10.0.0.1"]);
    let registration = crate::standalone::Registration {
        name: "edge-1".parse().unwrap(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        enrolment: token.id().clone(),
        enrolled_at: now(),
        gate_policy: None,
    };
    test.state.register(&registration).unwrap();
    for (address, reason) in [
        ("10.0.0.1", "belongs to node edge-1"),
        ("::ffff:10.0.0.1", "culvert node remove edge-1"),
        ("127.0.0.1", "a loopback address"),
    ] {
        let refused = test.state.create_token(new_token("edge-2", address), now());
        let message = refused.unwrap_err().to_string();
        assert!(
            message.contains("--address") && message.contains(reason),
            "{message}"
        );
    }
    test.state
        .create_token(new_token("edge-1", "10.0.0.1"), now())
        .unwrap();
}

#[test]
fn a_node_name_that_fits_no_file_and_a_senseless_life_are_refused() {
    let test = TestState::new();
    let long = format!("{}.{}", "a".repeat(125), "b".repeat(126));
    let refused = test.state.create_token(new_token(&long, "10.0.0.1"), now());
    assert!(matches!(refused, Err(TokenError::NameTooLong(_))));
    let mut new = new_token("edge-1", "10.0.0.1");
    new.ttl = std::time::Duration::ZERO;
    assert!(matches!(
        test.state.create_token(new, now()),
        Err(TokenError::Ttl)
    ));
}

#[test]
fn old_tokens_are_forgotten_a_month_after_their_end() {
    let test = TestState::new();
    let old = test.token("edge-1", &["10.0.0.1"]);
    for (days, kept) in [(29, true), (32, false)] {
        let then = now() + time::Duration::days(days);
        test.state
            .create_token(new_token("edge-2", "10.0.0.2"), then)
            .unwrap();
        assert_eq!(
            test.state.token(old.id()).unwrap().is_some(),
            kept,
            "{days}"
        );
    }
}

#[test]
fn one_damaged_record_hides_none_of_the_others() {
    let test = TestState::new();
    let good = test.token("edge-1", &["10.0.0.1"]);
    let damaged = test.token("edge-2", &["10.0.0.2"]);
    fs::write(
        test.state.tokens.file(&format!("{}.json", damaged.id())),
        "{",
    )
    .unwrap();
    let ids: Vec<_> = test
        .state
        .tokens()
        .unwrap()
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(ids, [good.id().clone()]);
    let message = test
        .state
        .revoke_token(damaged.id())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains(damaged.id().as_str()) && message.contains("culvert token create"),
        "{message}"
    );
}
