//! The end of an agent's certificate.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep_until},
};

use super::{is_reset, patiently};
use crate::{
    pki::Validity,
    tunnel::{
        Settings,
        agent::Policy,
        testing::{Carried, LIFE, TestAgent, TestServer, identity, name},
    },
};

/// Long enough to get a session and to carry something.
const SHORT: Duration = Duration::from_secs(3);

/// An agent whose certificate is over soon; and when it certainly is.
async fn short_lived(server: &TestServer) -> (TestAgent, Instant) {
    let over = Instant::now() + SHORT;
    let anything = Policy::new(Vec::new(), Vec::new());
    let identity = identity("edge-1", "k");
    let agent = server.agent_until(&[server.address], &identity, SHORT, anything);
    server.until_session("edge-1").await;
    (agent, over)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_certificate() {
    let server = TestServer::start(Settings::default()).await;
    let (_agent, over) = short_lived(&server).await;
    let Carried {
        mut client,
        target: _target,
        carrying: _carrying,
    } = server.carried().await;
    assert!(is_reset(patiently(client.read(&mut [0])).await));
    server.until(|sessions| sessions.count() == 0).await;
    // And it does not come back.
    sleep_until(over + Duration::from_secs(1)).await;
    assert_eq!(server.sessions.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_a_new_certificate_moves_and_finishes_what_it_carries() {
    let server = TestServer::start(Settings::default()).await;
    let (agent, over) = short_lived(&server).await;
    let Carried {
        mut client,
        mut target,
        carrying: _carrying,
    } = server.carried().await;
    let renewed = server.proof(&identity("edge-1", "k"), LIFE);
    agent.tls.send_replace(renewed);
    server
        .until(|sessions| sessions.reports().iter().any(|report| !report.retiring))
        .await;
    server.until(|sessions| sessions.count() == 2).await;
    sleep_until(over + Duration::from_secs(1)).await;
    client.write_all(b"still").await.unwrap();
    let mut received = [0; 5];
    patiently(target.read_exact(&mut received)).await.unwrap();
    let _new = server.carried().await;
    drop((client, target));
    server.until(|sessions| sessions.count() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_carried_is_not_cut_when_the_agent_has_been_given_a_newer_certificate() {
    let server = TestServer::start(Settings::default()).await;
    let (_agent, over) = short_lived(&server).await;
    let Carried {
        mut client,
        mut target,
        carrying: _carrying,
    } = server.carried().await;
    // It has not begun a session with it yet.
    let newer = Validity::starting(OffsetDateTime::now_utc(), LIFE);
    server.sessions.renewed(&identity("edge-1", "k"), newer);
    sleep_until(over + Duration::from_secs(1)).await;
    client.write_all(b"still").await.unwrap();
    let mut received = [0; 5];
    patiently(target.read_exact(&mut received)).await.unwrap();
    // Nothing new goes through it.
    assert!(!server.sessions.has(&name("edge-1")));
    drop((client, target));
    server.until(|sessions| sessions.count() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlives_its_certificate_does_so_for_a_limited_time() {
    let overtime = Duration::from_secs(1);
    let server = TestServer::start(Settings {
        overtime,
        ..Settings::default()
    })
    .await;
    let (agent, over) = short_lived(&server).await;
    let Carried {
        mut client,
        target: _target,
        carrying: _carrying,
    } = server.carried().await;
    let renewed = server.proof(&identity("edge-1", "k"), LIFE);
    agent.tls.send_replace(renewed);
    server.until(|sessions| sessions.count() == 2).await;
    assert!(is_reset(patiently(client.read(&mut [0])).await));
    // A certificate's end is a whole second: it may be up to one earlier than asked for.
    assert!(Instant::now() > over + overtime - Duration::from_secs(1));
    server.until(|sessions| sessions.count() == 1).await;
    let _new = server.carried().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_session_with_the_same_certificate_does_not_prolong_the_first() {
    let server = TestServer::start(Settings::default()).await;
    let (agent, _over) = short_lived(&server).await;
    let Carried {
        mut client,
        target: _target,
        carrying: _carrying,
    } = server.carried().await;
    agent.tls.send_modify(|_same| {});
    server.until(|sessions| sessions.count() == 2).await;
    assert!(is_reset(patiently(client.read(&mut [0])).await));
    server.until(|sessions| sessions.count() == 0).await;
}
