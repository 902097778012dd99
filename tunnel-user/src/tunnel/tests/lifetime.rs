//! A session that has carried as many connections as HTTP/2 has numbers for.

use std::time::SystemTime;

use super::*;
use crate::tunnel::testing::TestAgent;

fn session_since(agent: &TestAgent) -> Option<SystemTime> {
    let reports = agent.servers.reports().into_iter();
    let mut since = reports.filter_map(|report| match report.state {
        ServerState::Up(info) => Some(info.since),
        ServerState::Down(_) | ServerState::Duplicate { .. } => None,
    });
    since.next()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_replaced_before_its_numbers_end_and_what_it_carries_goes_on() {
    let settings = Settings {
        last_stream: 7,
        ..Settings::default()
    };
    let (server, agent) = TestServer::with_agent(settings).await;
    let mut changes = agent.servers.changes();
    for _ in 0..3 {
        let first = patiently(async {
            loop {
                match session_since(&agent) {
                    Some(since) => return since,
                    None => changes.changed().await.unwrap(),
                }
            }
        })
        .await;
        let mut carried = Vec::new();
        // The control stream has the first number.
        for _ in 0..3 {
            carried.push(server.carried().await);
        }
        patiently(async {
            while session_since(&agent).is_none_or(|since| since == first) {
                changes.changed().await.unwrap();
            }
        })
        .await;
        for Carried { client, target, .. } in &mut carried {
            client.write_all(b"on").await.unwrap();
            let mut arrived = [0; 2];
            patiently(target.read_exact(&mut arrived)).await.unwrap();
            assert_eq!(&arrived, b"on");
        }
    }
}
