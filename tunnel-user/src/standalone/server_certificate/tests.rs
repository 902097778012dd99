use std::fs;

use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    pki::new_key,
    standalone::testing::{TestState, now},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What [`OwnCa`] writes.
const FILE: &str = "server.pem";

async fn certificate(test: &TestState, life: Duration) -> ServerCertificate {
    ServerCertificate::new(Arc::clone(&test.state), life)
        .await
        .unwrap()
}

/// What this server issued itself at that time.
fn issued_at(test: &TestState, now: OffsetDateTime) -> Vec<u8> {
    let key = new_key().unwrap();
    let (ca, life) = (test.state.ca(), SERVER_CERTIFICATE_LIFE);
    let leaf = ca.issue_server(&key, Validity::starting(now, life));
    let chain = vec![leaf.unwrap(), ca.certificate().clone()];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Credential::new(key, chain).unwrap().to_pem().into_bytes()
}

fn stored(test: &TestState) -> Vec<u8> {
    test.state.dir.read(FILE).unwrap().unwrap()
}

#[tokio::test]
async fn the_certificate_outlives_a_restart() {
    let test = TestState::new();
    certificate(&test, SERVER_CERTIFICATE_LIFE).await;
    let first = stored(&test);
    certificate(&test, SERVER_CERTIFICATE_LIFE).await;
    assert_eq!(stored(&test), first);
}

#[tokio::test]
async fn a_certificate_that_is_damaged_over_or_of_another_ca_is_issued_anew() {
    let test = TestState::new();
    let other = TestState::new();
    certificate(&other, SERVER_CERTIFICATE_LIFE).await;
    let good = issued_at(&test, now());
    fs::write(test.state.dir.file(FILE), &good).unwrap();
    certificate(&test, SERVER_CERTIFICATE_LIFE).await;
    assert_eq!(stored(&test), good);
    for content in [
        b"rubbish".to_vec(),
        stored(&other),
        issued_at(&test, now() - SERVER_CERTIFICATE_LIFE),
        issued_at(&test, now() + SERVER_CERTIFICATE_LIFE),
        Vec::new(),
    ] {
        fs::write(test.state.dir.file(FILE), &content).unwrap();
        let issued = certificate(&test, SERVER_CERTIFICATE_LIFE).await;
        assert_ne!(stored(&test), content);
        let validity = issued.validities().borrow().unwrap();
        assert!(validity.has_begun(now()) && !validity.has_ended(now()));
    }
}

#[tokio::test]
async fn the_certificate_is_renewed_while_the_server_runs() {
    let test = TestState::new();
    let certificate = certificate(&test, Duration::from_secs(2)).await;
    let mut configs = certificate.configs();
    let first = configs.borrow_and_update().clone();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(certificate.run(|_| {}, shutdown.clone()));
    timeout(PATIENCE, configs.changed()).await.unwrap().unwrap();
    assert!(!Arc::ptr_eq(&first, &configs.borrow()));
    shutdown.cancel();
    timeout(PATIENCE, running).await.unwrap().unwrap();
}
