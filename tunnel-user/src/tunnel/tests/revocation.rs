//! Certificates of a cluster that count no longer, though they have not expired.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;
use tokio::{io::AsyncReadExt as _, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{is_reset, patiently};
use crate::{
    model::Admits,
    pki::Validity,
    tunnel::{
        Settings,
        agent::Policy,
        testing::{Carried, LIFE, TestAgent, TestServer, identity},
    },
};

/// The time within which a revocation has to take effect.
const EFFECT: Duration = Duration::from_secs(1);

/// A server of a cluster, whose sessions follow its snapshots for as long as the guard lives.
async fn in_cluster() -> (TestServer, AbortOnDropHandle<()>) {
    let server = TestServer::in_cluster(Settings::default()).await;
    let (sessions, snapshots) = (server.sessions.clone(), server.snapshots.subscribe());
    let following = tokio::spawn(sessions.follow(snapshots, CancellationToken::new()));
    (server, AbortOnDropHandle::new(following))
}

/// A moment between the issue of the old certificate and now.
fn since() -> Admits {
    Admits::IssuedSince(OffsetDateTime::now_utc() - LIFE / 4)
}

/// An agent whose certificate is half an hour old.
fn old_agent(server: &TestServer) -> TestAgent {
    let issued = OffsetDateTime::now_utc() - LIFE / 2;
    let identity = identity("edge-1", "k");
    let old = server.proof_of(&identity, Validity::starting(issued, LIFE));
    let anything = Policy::new(Vec::new(), Vec::new());
    server.agent_with(&[server.address], &identity, old, anything)
}

async fn until_refused(agent: &mut TestAgent) {
    let tls = Arc::clone(&agent.tls.borrow());
    let is_refused = agent.refused.wait_for(|refused| {
        refused
            .as_ref()
            .is_some_and(|refused| Arc::ptr_eq(refused, &tls))
    });
    patiently(is_refused).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_gets_no_session_and_its_agent_is_told_to_get_another() {
    let (server, _following) = in_cluster().await;
    server.edge_1_admits(Some(since()));
    let mut agent = old_agent(&server);
    until_refused(&mut agent).await;
    assert_eq!(server.sessions.count(), 0);
    // The honest agent has one by then.
    agent
        .tls
        .send_replace(server.proof(&identity("edge-1", "k"), LIFE));
    server.until_session("edge-1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_ends_open_sessions_and_what_they_carry_at_once() {
    let (server, _following) = in_cluster().await;
    let _agent = old_agent(&server);
    server.until_session("edge-1").await;
    let Carried {
        mut client,
        target: _target,
        carrying: _carrying,
    } = server.carried().await;
    server.edge_1_admits(Some(since()));
    let ended = timeout(EFFECT, client.read(&mut [0])).await;
    assert!(is_reset(ended.expect("it goes on")));
    server.until(|sessions| sessions.count() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_thief_of_an_old_certificate_does_not_displace_the_agent_with_a_newer_one() {
    let (server, _following) = in_cluster().await;
    server.edge_1_admits(Some(since()));
    let _honest = server.agent("edge-1", "k", Policy::new(Vec::new(), Vec::new()));
    server.until_session("edge-1").await;
    let mut thief = old_agent(&server);
    until_refused(&mut thief).await;
    let reports = server.sessions.reports();
    assert!(reports.len() == 1 && !reports[0].retiring, "{reports:?}");
    let _served = server.carried().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_let_in_while_a_revocation_cannot_be_read_nor_told_to_get_a_certificate() {
    let (server, _following) = in_cluster().await;
    let agent = old_agent(&server);
    server.until_session("edge-1").await;
    server.edge_1_admits(Some(Admits::Nobody));
    server.until(|sessions| sessions.count() == 0).await;
    assert!(
        agent.refused.borrow().is_none(),
        "another one would not help"
    );
    server.edge_1_admits(Some(since()));
    agent
        .tls
        .send_replace(server.proof(&identity("edge-1", "k"), LIFE));
    server.until_session("edge-1").await;
}
