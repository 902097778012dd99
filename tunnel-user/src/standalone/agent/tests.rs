//! Enrolment and renewal over real TLS connections on loopback.

use std::{path::PathBuf, slice, sync::Arc, time::Duration};

use rustls::ClientConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{net::TcpListener, time::timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    AgentCredentials, AgentOptions, CallError,
    call::{Ask, ask_any},
    credentials::store,
    identity::StoredIdentity,
};
use crate::{
    model::{AgentIdentity, Mark, ServerAddr},
    pki::{
        AgentProof, Ca, Credential, SERVER_NAME, ServerProof, Validity, agent_identity,
        client_config, enrolment_client_config, new_key, request, server_config,
    },
    standalone::{
        JoinToken, chain,
        proto::{EnrolRequest, RenewRequest},
        testing::{TestServer, TestState, csr, now, server_addr},
    },
};

const DAY: Duration = Duration::from_hours(24);
const PATIENCE: Duration = Duration::from_secs(20);

fn mark() -> Mark {
    "1".parse().unwrap()
}

fn options(test: &TestState, server: &ServerAddr, token: Option<JoinToken>) -> AgentOptions {
    AgentOptions {
        state_dir: test.dir.path().join("agent"),
        node: "edge-1".parse().unwrap(),
        servers: vec![server.clone()],
        token: token.map(Ok),
        pin: Some(test.state.ca().pin()),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        mark: mark(),
    }
}

async fn establish(options: &AgentOptions) -> anyhow::Result<AgentCredentials> {
    timeout(
        PATIENCE,
        AgentCredentials::establish(options, &|_| {}, &CancellationToken::new()),
    )
    .await
    .expect("an answer in time")
}

async fn refused(options: &AgentOptions) -> String {
    let error = establish(options).await.err().expect("refused");
    chain(error.as_ref())
}

fn renewal() -> Ask {
    let csr_der = request(&new_key().unwrap()).unwrap();
    Ask::Renew(RenewRequest { csr_der })
}

/// A certificate for node edge-1 from this CA, made by hand.
fn credential(ca: &Ca, validity: Validity) -> Credential {
    credential_of("edge-1", ca, validity)
}

fn credential_of(node: &str, ca: &Ca, validity: Validity) -> Credential {
    let key = new_key().unwrap();
    let identity = AgentIdentity {
        node: node.parse().unwrap(),
        addresses: vec![],
        key: "abcdefghij".into(),
    };
    let leaf = ca.issue_agent(&csr(&key), &identity, validity).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Credential::new(key, vec![leaf]).unwrap()
}

async fn ask_with(config: ClientConfig, server: &ServerAddr, ask: &Ask) -> CallError {
    let config = Arc::new(config);
    let asked = ask_any(slice::from_ref(server), &config, mark(), ask);
    timeout(PATIENCE, asked)
        .await
        .expect("an answer in time")
        .expect_err("refused")
}

#[tokio::test]
async fn an_agent_enrols_once_and_never_needs_the_token_again() {
    let test = TestState::new();
    let server = TestServer::start(&test.state, DAY).await;
    let token = test.token("edge-1", &[]);
    let mut options = options(&test, &server.addr, Some(token.clone()));
    let enrolled = establish(&options).await.unwrap();
    let identity = enrolled.identities().borrow().clone();
    assert_eq!(identity.addresses, options.addresses);
    assert_eq!(identity.key.as_str(), token.id().as_str());
    let files: Vec<_> = std::fs::read_dir(&options.state_dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(files, ["agent.pem"]);

    drop(server);
    let deleted = Err("cannot read --token-file".to_owned());
    for token in [Some(Ok(token)), Some(deleted), None] {
        options.token = token;
        let stored = establish(&options).await.unwrap();
        assert_eq!(*stored.identities().borrow(), identity);
    }
}

#[tokio::test]
async fn an_agent_renews_its_certificate_while_it_runs() {
    let test = TestState::new();
    let server = TestServer::start(&test.state, Duration::from_secs(3)).await;
    let options = options(
        &test,
        &server.addr,
        Some(test.token("edge-1", &["10.0.0.1"])),
    );
    let credentials = establish(&options).await.unwrap();
    let identity = credentials.identities().borrow().clone();
    let (mut configs, validities) = (credentials.configs(), credentials.validities());
    let first = *validities.borrow();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(credentials.run(shutdown.clone()));
    for _ in 0..2 {
        timeout(PATIENCE, configs.changed()).await.unwrap().unwrap();
    }
    shutdown.cancel();
    timeout(PATIENCE, running).await.unwrap().unwrap();
    assert!(validities.borrow().expires > first.expires);
    let store = store(&options.state_dir).unwrap();
    let stored = store.load().unwrap().unwrap().unwrap();
    assert_eq!(StoredIdentity::of(&stored).unwrap().identity, identity);
    assert_eq!(stored.validity, *validities.borrow());
}

#[tokio::test]
async fn an_agent_whose_answer_was_lost_asks_again_after_a_restart() {
    let test = TestState::new();
    let server = TestServer::start(&test.state, DAY).await;
    let token = test.token("edge-1", &["10.0.0.1"]);
    let options = options(&test, &server.addr, Some(token.clone()));
    let store = store(&options.state_dir).unwrap();
    let lost = Ask::Enrol(EnrolRequest {
        token: token.reveal(),
        csr_der: request(&store.pending_key().unwrap()).unwrap(),
        addresses: vec![],
        node: "edge-1".to_owned(),
    });
    let config = enrolment_client_config(test.state.ca().pin()).unwrap();
    ask_any(&options.servers, &Arc::new(config), mark(), &lost)
        .await
        .unwrap();
    establish(&options).await.unwrap();
}

#[tokio::test]
async fn each_wrong_token_is_refused_with_its_reason_and_a_way_out() {
    let test = TestState::new();
    let server = TestServer::start(&test.state, DAY).await;
    let used = test.token("edge-1", &["10.0.0.1"]);
    let mut first = options(&test, &server.addr, Some(used.clone()));
    first.state_dir = test.dir.path().join("first");
    establish(&first).await.unwrap();

    let wrong = format!("{}.aaaaaaaaaaaaaaaaaaaaaaaaaa", used.id());
    let revoked = test.token("edge-1", &["10.0.0.1"]);
    test.state.revoke_token(revoked.id()).unwrap();
    for (token, reason) in [
        (used, "already used"),
        (wrong.parse().unwrap(), "not valid on this server"),
        (revoked, "revoked"),
        (
            test.token("edge-2", &["10.0.0.2"]),
            "enrols node edge-2, but this agent calls itself edge-1",
        ),
    ] {
        let message = refused(&options(&test, &server.addr, Some(token))).await;
        assert!(message.contains(reason), "{message} lacks {reason}");
        assert!(message.contains("culvert token create"), "{message}");
    }
}

#[tokio::test]
async fn a_server_with_another_ca_is_refused_before_it_sees_the_token() {
    let test = TestState::new();
    let foreign = TestState::new();
    let server = TestServer::start(&foreign.state, DAY).await;
    let token = test.token("edge-1", &["10.0.0.1"]);
    let message = refused(&options(&test, &server.addr, Some(token))).await;
    let (expected, presented) = (test.state.ca().pin(), foreign.state.ca().pin());
    for part in [
        &expected.to_string(),
        &presented.to_string(),
        "--ca-hash",
        "intercepts",
    ] {
        assert!(message.contains(part), "{message} lacks {part}");
    }
    assert!(foreign.state.registrations().unwrap().is_empty());
}

#[tokio::test]
async fn a_client_certificate_of_a_foreign_ca_or_past_its_end_fails_the_handshake() {
    let test = TestState::new();
    let server = TestServer::start(&test.state, DAY).await;
    let foreign = Ca::generate(now()).unwrap();
    let past = Validity::starting(now() - 2 * DAY, DAY);
    for (credential, alert) in [
        (
            credential(&foreign, Validity::starting(now(), DAY)),
            "UnknownCA",
        ),
        (credential(test.state.ca(), past), "CertificateExpired"),
    ] {
        let config = client_config(
            &credential,
            slice::from_ref(test.state.ca().certificate()),
            ServerProof::OwnCa,
        )
        .unwrap();
        let error = ask_with(config, &server.addr, &renewal()).await;
        let message = chain(&error);
        assert!(message.contains(alert), "{message} lacks {alert}");
    }
}

#[tokio::test]
async fn a_caller_without_a_certificate_gets_no_renewal() {
    let test = TestState::new();
    let server = TestServer::start(&test.state, DAY).await;
    let config = enrolment_client_config(test.state.ca().pin()).unwrap();
    let error = ask_with(config, &server.addr, &renewal()).await;
    assert!(matches!(error, CallError::Refused { .. }), "{error}");
    assert!(
        error.to_string().contains("no client certificate"),
        "{error}"
    );
}

#[tokio::test]
async fn a_certificate_whose_enrolment_was_made_up_gets_no_renewal() {
    let test = TestState::new();
    let server = TestServer::start(&test.state, DAY).await;
    let enrolled = options(
        &test,
        &server.addr,
        Some(test.token("edge-1", &["10.0.0.1"])),
    );
    establish(&enrolled).await.unwrap();
    let older = credential(test.state.ca(), Validity::starting(now(), DAY));
    let config = client_config(
        &older,
        slice::from_ref(test.state.ca().certificate()),
        ServerProof::OwnCa,
    )
    .unwrap();
    let error = ask_with(config, &server.addr, &renewal()).await;
    assert!(error.to_string().contains("enrolled anew"), "{error}");
}

#[tokio::test]
async fn an_agents_certificate_cannot_pose_as_the_server() {
    let test = TestState::new();
    // A node may well be called that.
    let life = Validity::starting(now(), DAY);
    let mut impostor = credential_of(SERVER_NAME, test.state.ca(), life);
    impostor.chain.push(test.state.ca().certificate().clone());
    let config = server_config(&impostor, slice::from_ref(test.state.ca().certificate())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = server_addr(listener.local_addr().unwrap());
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let _impostor = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            // The agent ends the handshake.
            let _ = acceptor.accept(tcp).await;
        }
    }));
    let agent = credential(test.state.ca(), Validity::starting(now(), DAY));
    for config in [
        enrolment_client_config(test.state.ca().pin()).unwrap(),
        client_config(
            &agent,
            slice::from_ref(test.state.ca().certificate()),
            ServerProof::OwnCa,
        )
        .unwrap(),
    ] {
        let error = ask_with(config, &addr, &renewal()).await;
        assert!(matches!(error, CallError::WrongServer { .. }), "{error:?}");
        let message = chain(&error);
        assert!(message.contains("server authentication"), "{message}");
    }
}

#[tokio::test]
async fn a_new_token_enrols_anew_and_a_bad_one_leaves_the_identity_that_is_good() {
    let test = TestState::new();
    let server = TestServer::start(&test.state, DAY).await;
    let first = options(
        &test,
        &server.addr,
        Some(test.token("edge-1", &["10.0.0.1"])),
    );
    establish(&first).await.unwrap();
    let second = test.token("edge-1", &["10.0.0.2"]);
    let again = options(&test, &server.addr, Some(second.clone()));
    let credentials = establish(&again).await.unwrap();
    assert_eq!(
        credentials.identities().borrow().key.as_str(),
        second.id().as_str()
    );

    let bad = "aaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaa".parse().unwrap();
    let credentials = establish(&options(&test, &server.addr, Some(bad)))
        .await
        .unwrap();
    assert_eq!(
        credentials.identities().borrow().key.as_str(),
        second.id().as_str()
    );
}

#[test]
fn a_certificate_for_another_key_is_nobodys_identity() {
    let ca = Ca::generate(now()).unwrap();
    let life = Validity::starting(now(), DAY);
    let [mut own, other] = [credential(&ca, life), credential(&ca, life)];
    own.chain.push(ca.certificate().clone());
    assert!(StoredIdentity::of(&own).is_ok());
    own.key = other.key;
    let error = StoredIdentity::of(&own).unwrap_err();
    assert!(error.to_string().contains("key does not belong"), "{error}");
}

#[tokio::test]
async fn a_damaged_credential_is_named_and_a_token_replaces_it() {
    let test = TestState::new();
    let server = TestServer::start(&test.state, DAY).await;
    let mut options = options(&test, &server.addr, None);
    let damaged: PathBuf = options.state_dir.join("agent.pem");
    store(&options.state_dir).unwrap();
    std::fs::write(&damaged, "rubbish").unwrap();
    let message = refused(&options).await;
    assert!(
        message.contains(options.state_dir.to_str().unwrap()),
        "{message}"
    );
    assert!(
        message.contains("culvert token create --node edge-1"),
        "{message}"
    );

    options.token = Some(Ok(test.token("edge-1", &["10.0.0.1"])));
    let credentials = establish(&options).await.unwrap();
    let store = store(&options.state_dir).unwrap();
    let stored = store.load().unwrap().unwrap().unwrap();
    assert_eq!(
        agent_identity(stored.leaf(), AgentProof::Enrolment).unwrap(),
        *credentials.identities().borrow()
    );
}

#[tokio::test]
async fn enrolment_goes_on_until_a_server_can_be_reached_or_the_agent_is_stopped() {
    let test = TestState::new();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = server_addr(closed.local_addr().unwrap());
    drop(closed);
    let options = options(&test, &addr, Some(test.token("edge-1", &["10.0.0.1"])));
    let shutdown = CancellationToken::new();
    let (trouble_tx, mut trouble_rx) = tokio::sync::mpsc::unbounded_channel();
    let trouble = move |reason| trouble_tx.send(reason).unwrap();
    let establishing = AgentCredentials::establish(&options, &trouble, &shutdown);
    tokio::pin!(establishing);
    for _ in 0..2 {
        let reason = tokio::select! {
            reason = trouble_rx.recv() => reason.unwrap(),
            _ = &mut establishing => panic!("gave up"),
        };
        assert!(reason.contains(&addr.to_string()), "{reason}");
    }
    shutdown.cancel();
    let error = timeout(PATIENCE, establishing)
        .await
        .unwrap()
        .err()
        .unwrap();
    assert!(error.to_string().contains("stopped before"), "{error}");
}
