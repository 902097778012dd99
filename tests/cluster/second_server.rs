//! Two servers behind one address, as behind a load balancer: every agent has a session with each, and nobody was
//! restarted for it.

use std::collections::BTreeMap;

use anyhow::Result;
use culvert_tests::cluster::{AnotherServer, CULVERT_NAMESPACE, Cluster, wait_until};
use tunnel_user::observability::status::StatusReport;

use crate::stage::{PATIENCE, culvert, kill, relayed};
use crate::tidying::tidied;

const BALANCED: &str = "10.77.0.1:10500";
const ANNOTATION: &str = "x-tunnel-server-external-addr";

/// Sends agents to either server in turn, and tells them of it by the Service's annotation.
pub(crate) struct Balancer<'a>(&'a Cluster);

impl<'a> Balancer<'a> {
    pub(crate) fn new(cluster: &'a Cluster) -> Self {
        let rules = "table ip balancer {
            chain balance {
                type nat hook prerouting priority -150;
                tcp dport 10500 dnat to 10.77.0.1 : numgen inc mod 2 map { 0 : 10262, 1 : 10362 }
            }
        }";
        cluster.lab().control().nft(rules).unwrap();
        annotate(cluster, &format!("{ANNOTATION}={BALANCED}")).unwrap();
        Self(cluster)
    }
}

impl Drop for Balancer<'_> {
    fn drop(&mut self) {
        let control = self.0.lab().control();
        let annotated = annotate(self.0, &format!("{ANNOTATION}-"));
        let balanced = control.nft("delete table ip balancer");
        tidied("the balancer stays", annotated.and(balanced));
    }
}

fn annotate(cluster: &Cluster, annotation: &str) -> Result<()> {
    let service = "annotate --overwrite service x-tunnel-server-svc -n";
    let words = service.split(' ').chain([CULVERT_NAMESPACE, annotation]);
    cluster.kubectl(words).map(drop)
}

pub(crate) fn until_it_has_both_agents(second: &AnotherServer<'_>) {
    wait_until("both agents come to the second server", PATIENCE, || {
        Ok((sessions(&second.status()?).len() == 2).then_some(()))
    })
    .unwrap();
}

/// Who has a session, and since when.
fn sessions(status: &StatusReport) -> BTreeMap<String, i64> {
    let sessions = status.sessions.iter();
    let since = |at: time::OffsetDateTime| at.unix_timestamp();
    sessions
        .map(|one| (one.node.to_string(), since(one.connected_at)))
        .collect()
}

/// Waits until each agent knows of so many servers, and has a session with each.
pub(crate) fn until_agents_count(cluster: &Cluster, servers: usize) {
    for edge in [cluster.edge(0), cluster.edge(1)] {
        let curl = edge
            .launch("curl")
            .words("-sSf http://127.0.0.1:10266/metrics");
        wait_until("the agent counts servers", PATIENCE, || {
            let metrics = curl.start()?.succeed(PATIENCE)?;
            let says = |name: &str| metrics.contains(&format!("culvert_agent_{name} {servers}\n"));
            Ok((says("servers") && says("sessions")).then_some(()))
        })
        .unwrap();
    }
}

#[test]
fn agents_find_every_server_behind_one_address_and_notice_when_one_goes_or_comes() {
    let cluster = culvert();
    let first = || serde_json::from_value(cluster.culvert_status().unwrap()).unwrap();
    until_agents_count(cluster, 1);
    let before = sessions(&first());
    let second = AnotherServer::new(cluster).unwrap();
    let mut server = second.start().unwrap();
    let _balancer = Balancer::new(cluster);
    until_it_has_both_agents(&second);
    until_agents_count(cluster, 2);
    assert_eq!(second.asks_a_kubelet().unwrap(), "401");
    // Nobody who had a session was asked for another one.
    assert_eq!(sessions(&first()), before);

    assert!(server.stop(PATIENCE).unwrap().success());
    until_agents_count(cluster, 1);
    let mut server = second.start().unwrap();
    until_it_has_both_agents(&second);
    until_agents_count(cluster, 2);
    // One that is killed cannot say so.
    server.kill().unwrap();
    until_agents_count(cluster, 1);
    assert_eq!(sessions(&first()), before);
}

#[test]
fn a_server_that_no_agent_knows_has_its_clients_carried_by_one_that_they_know() {
    let cluster = culvert();
    until_agents_count(cluster, 1);
    let before = relayed("answered");
    let second = AnotherServer::new(cluster).unwrap();
    let mut server = second.start().unwrap();
    // It has to get the certificate by which the other server knows it.
    wait_until(
        "a kubelet answers through the other server",
        PATIENCE,
        || Ok((second.asks_a_kubelet()? == "401").then_some(())),
    )
    .unwrap();
    assert_eq!(second.status().unwrap().sessions.len(), 0);
    let answered = relayed("answered");
    assert!(answered > before, "{before} then {answered}");
    assert_eq!(relayed("asked"), 0, "its own sessions are nearer");
    for _ in 0..20 {
        assert_eq!(second.asks_a_kubelet().unwrap(), "401");
    }
    assert_eq!(relayed("answered"), answered + 20);

    // The one that takes its place has another id.
    kill(cluster.control_plane(), "culvert");
    wait_until(
        "a kubelet answers through the next server",
        PATIENCE,
        || Ok((second.asks_a_kubelet()? == "401").then_some(())),
    )
    .unwrap();
    assert!(server.stop(PATIENCE).unwrap().success());
    until_agents_count(cluster, 1);
}
