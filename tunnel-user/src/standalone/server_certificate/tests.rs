use std::fs;

use tokio::time::timeout;

use super::*;
use crate::standalone::testing::{TestState, now};

const PATIENCE: Duration = Duration::from_secs(20);

fn certificate(test: &TestState, life: Duration, now: OffsetDateTime) -> ServerCertificate {
    ServerCertificate::new(Arc::clone(&test.state), life, now).unwrap()
}

fn stored(test: &TestState) -> Vec<u8> {
    test.state.dir.read(FILE).unwrap().unwrap()
}

#[test]
fn the_certificate_outlives_a_restart() {
    let test = TestState::new();
    certificate(&test, SERVER_CERTIFICATE_LIFE, now());
    let first = stored(&test);
    certificate(&test, SERVER_CERTIFICATE_LIFE, now());
    assert_eq!(stored(&test), first);
}

#[test]
fn a_certificate_that_is_damaged_over_or_of_another_ca_is_issued_anew() {
    let test = TestState::new();
    let other = TestState::new();
    certificate(&other, SERVER_CERTIFICATE_LIFE, now());
    let year = now() + SERVER_CERTIFICATE_LIFE;
    certificate(&test, SERVER_CERTIFICATE_LIFE, now());
    let good = stored(&test);
    for (content, now) in [
        (b"rubbish".to_vec(), now()),
        (stored(&other), now()),
        (good.clone(), year),
        (Vec::new(), now()),
    ] {
        fs::write(test.state.dir.file(FILE), &content).unwrap();
        let issued = certificate(&test, SERVER_CERTIFICATE_LIFE, now);
        assert_ne!(stored(&test), content);
        assert!(!issued.validities().borrow().has_ended(now));
    }
}

#[tokio::test]
async fn the_certificate_is_renewed_while_the_server_runs() {
    let test = TestState::new();
    let certificate = certificate(&test, Duration::from_secs(2), now());
    let mut configs = certificate.configs();
    let first = configs.borrow_and_update().clone();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(certificate.run(shutdown.clone()));
    timeout(PATIENCE, configs.changed()).await.unwrap().unwrap();
    assert!(!Arc::ptr_eq(&first, &configs.borrow()));
    shutdown.cancel();
    timeout(PATIENCE, running).await.unwrap().unwrap();
}
