//! What the leading server writes for clients that dial nodes by name: the records of nodes, and the ports of the
//! internal Service.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use culvert_tests::cluster::{CULVERT_NAMESPACE, Cluster, wait_until};
use culvert_tests::until;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tunnel_user::kubernetes::events::Events;
use tunnel_user::kubernetes::source::{Listing, NodePlace};
use tunnel_user::kubernetes::{Publication, PublicationOptions, PublicationReader};
use tunnel_user::model::{ListeningPorts, Scheme, TunnelPort};

use crate::api::{self, Place, access, in_control_plane};
use crate::objects::{EDGE_LABEL, Ghost, Ports, events};
use crate::stage::{PATIENCE, culvert, metric};
use crate::tidying::tidied;

const RECORDS: &str = "yurt-tunnel-nodes";
const SERVICE: &str = "x-tunnel-server-internal-svc";
/// How long a change may take, as the manual says.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What somebody adds to an object in Culvert's namespace by hand; taken back with its guard.
struct Patched {
    cluster: &'static Cluster,
    object: &'static str,
    back: Value,
}

impl Patched {
    fn new(cluster: &'static Cluster, object: &'static str, there: &Value, back: Value) -> Self {
        patch(cluster, object, there).unwrap();
        Self {
            cluster,
            object,
            back,
        }
    }
}

impl Drop for Patched {
    fn drop(&mut self) {
        tidied(
            "a change stays",
            patch(self.cluster, self.object, &self.back),
        );
    }
}

/// A strategic merge: lists of ports by their numbers.
fn patch(cluster: &Cluster, object: &str, patch: &Value) -> Result<()> {
    let patch = patch.to_string();
    let words = [
        "-n",
        CULVERT_NAMESPACE,
        "patch",
        object,
        "--type=strategic",
        "-p",
        &patch,
    ];
    cluster.kubectl(words).map(drop)
}

fn service_address(cluster: &Cluster) -> String {
    let service = cluster
        .get(&format!("-n {CULVERT_NAMESPACE} service {SERVICE}"))
        .unwrap();
    service["spec"]["clusterIP"].as_str().unwrap().to_owned()
}

fn records(cluster: &Cluster) -> Result<String> {
    let map = cluster.get(&format!("-n {CULVERT_NAMESPACE} configmap {RECORDS}"))?;
    Ok(map["data"]["tunnel-nodes"]
        .as_str()
        .unwrap_or_default()
        .to_owned())
}

fn addresses_of(records: &str, node: &str) -> Vec<String> {
    let lines = records.lines().filter_map(|line| line.split_once('\t'));
    lines
        .filter(|(_, name)| *name == node)
        .map(|(address, _)| address.to_owned())
        .collect()
}

fn until_node_is_at(cluster: &Cluster, node: &str, patience: Duration, expected: &[&str]) {
    until(&format!("{node} is at {expected:?}"), patience, || {
        Ok((addresses_of(&records(cluster)?, node) == expected).then_some(()))
    })
    .unwrap();
}

/// Name, number and target of each port.
fn ports(cluster: &Cluster) -> Result<Vec<(String, u64, String)>> {
    let service = cluster.get(&format!("-n {CULVERT_NAMESPACE} service {SERVICE}"))?;
    let ports = service["spec"]["ports"].as_array().context("no ports")?;
    let port = |port: &Value| {
        let name = port["name"].as_str().unwrap_or_default().to_owned();
        (
            name,
            port["port"].as_u64().unwrap_or(0),
            port["targetPort"].to_string(),
        )
    };
    let mut ports: Vec<_> = ports.iter().map(port).collect();
    ports.sort();
    Ok(ports)
}

fn until_ports_are(cluster: &Cluster, patience: Duration, expected: &[(&str, u64, u64)]) {
    let mut expected: Vec<_> = expected
        .iter()
        .map(|(name, port, target)| ((*name).to_owned(), *port, target.to_string()))
        .collect();
    expected.sort();
    until(&format!("the ports are {expected:?}"), patience, || {
        Ok((ports(cluster)? == expected).then_some(()))
    })
    .unwrap();
}

const AGENTS: (&str, u64, u64) = ("tcp", 10262, 10262);
const KUBELET: [(&str, u64, u64); 2] = [("https", 10250, 10263), ("http", 10255, 10264)];

#[test]
fn records_follow_nodes_at_once_and_leave_alone_what_is_somebody_elses() {
    let cluster = culvert();
    let service = service_address(cluster);
    until_node_is_at(cluster, "edge-1", PATIENCE, &[&service]);
    until_node_is_at(cluster, "edge-2", PATIENCE, &[&service]);
    let control = cluster.control_plane().addresses()[0].to_string();
    assert_eq!(
        addresses_of(&records(cluster).unwrap(), "control-plane")[0],
        control
    );
    let _mine = Patched::new(
        cluster,
        "configmap/yurt-tunnel-nodes",
        &json!({ "metadata": { "labels": { "mine": "yes" } }, "data": { "mine": "too" } }),
        json!({ "metadata": { "labels": { "mine": null } }, "data": { "mine": null } }),
    );

    // Ends as another node's name does.
    let ghost = Ghost::new(cluster, "a-edge-1", "10.78.0.81");
    until_node_is_at(cluster, "a-edge-1", AT_ONCE, &["10.78.0.81"]);
    ghost.label(EDGE_LABEL);
    until_node_is_at(cluster, "a-edge-1", AT_ONCE, &[&service]);
    ghost.label("openyurt.io/is-edge-worker-");
    until_node_is_at(cluster, "a-edge-1", AT_ONCE, &["10.78.0.81"]);
    ghost.move_to("10.78.0.82");
    until_node_is_at(cluster, "a-edge-1", AT_ONCE, &["10.78.0.82"]);
    drop(ghost);
    until_node_is_at(cluster, "a-edge-1", AT_ONCE, &[]);

    let map = cluster
        .get(&format!("-n {CULVERT_NAMESPACE} configmap {RECORDS}"))
        .unwrap();
    assert_eq!(map["data"]["mine"], "too");
    assert_eq!(map["metadata"]["labels"]["mine"], "yes");
    let text = records(cluster).unwrap();
    let mut sorted: Vec<_> = text.lines().collect();
    sorted.sort_unstable();
    assert_eq!(text, sorted.join("\n"));
    assert_eq!(addresses_of(&text, "edge-1"), [service]);
}

#[test]
fn records_that_somebody_deletes_or_spoils_are_back_and_nothing_is_written_without_need() {
    let cluster = culvert();
    let service = service_address(cluster);
    until_node_is_at(cluster, "edge-1", PATIENCE, &[&service]);
    let delete = ["-n", CULVERT_NAMESPACE, "delete", "configmap", RECORDS];
    cluster.kubectl(delete).unwrap();
    until_node_is_at(cluster, "edge-1", AT_ONCE, &[&service]);
    let spoilt = json!({ "data": { "tunnel-nodes": "203.0.113.1\tedge-1" } });
    patch(cluster, "configmap/yurt-tunnel-nodes", &spoilt).unwrap();
    until_node_is_at(cluster, "edge-1", AT_ONCE, &[&service]);

    let version = || {
        let map = cluster
            .get(&format!("-n {CULVERT_NAMESPACE} configmap {RECORDS}"))
            .unwrap();
        map["metadata"]["resourceVersion"].clone()
    };
    let (writes, before) = (metric("culvert_server_published_writes_total"), version());
    // Kubelets report their state meanwhile.
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(metric("culvert_server_published_writes_total"), writes);
    assert_eq!(version(), before);
    let status = cluster.culvert_status().unwrap();
    let published = &status["cluster"]["published"][0];
    assert_eq!(published["object"], "kube-system/yurt-tunnel-nodes");
    assert!(published["written_at"].is_string(), "{published}");
    assert!(published["troubles"].is_null(), "{published}");
}

#[test]
fn ports_of_the_service_follow_those_of_the_config_map_and_users_own_stay() {
    let cluster = culvert();
    let listed = Ports::new(cluster, &[]);
    until_ports_are(cluster, PATIENCE, &[AGENTS, KUBELET[0], KUBELET[1]]);
    listed.set(&[
        ("http-proxy-ports", "9100"),
        ("https-proxy-ports", "9443"),
        ("localhost-proxy-ports", "10266"),
    ]);
    let (http, https) = (("dnat-9100", 9100, 10264), ("dnat-9443", 9443, 29443));
    until_ports_are(
        cluster,
        AT_ONCE,
        &[AGENTS, KUBELET[0], KUBELET[1], http, https],
    );
    listed.set(&[("https-proxy-ports", "9443")]);
    until_ports_are(cluster, AT_ONCE, &[AGENTS, KUBELET[0], KUBELET[1], https]);

    let mine = json!([
        { "name": "mine", "port": 9200, "targetPort": 9999 },
        { "name": "taken", "port": 9300, "targetPort": 9998 },
    ]);
    let gone = json!([{ "$patch": "delete", "port": 9200 }, { "$patch": "delete", "port": 9300 }]);
    let _mine = Patched::new(
        cluster,
        "service/x-tunnel-server-internal-svc",
        &json!({ "spec": { "ports": mine, "sessionAffinity": "ClientIP" } }),
        json!({ "spec": { "ports": gone, "sessionAffinity": "None" } }),
    );
    let users = [("mine", 9200, 9999), ("taken", 9300, 9998)];
    listed.set(&[("http-proxy-ports", "9300, 9400")]);
    let other = ("dnat-9400", 9400, 10264);
    let all = [AGENTS, KUBELET[0], KUBELET[1], other, users[0], users[1]];
    until_ports_are(cluster, AT_ONCE, &all);
    wait_until("an Event tells whose the port is", PATIENCE, || {
        let told = events(cluster, "Service", SERVICE, "ServicePortTaken")?;
        let named = told
            .iter()
            .any(|note| note.contains("port 9300") && note.contains("kubectl"));
        Ok(named.then_some(()))
    })
    .unwrap();
    listed.set(&[]);
    until_ports_are(
        cluster,
        AT_ONCE,
        &[AGENTS, KUBELET[0], KUBELET[1], users[0], users[1]],
    );
    let service = cluster
        .get(&format!("-n {CULVERT_NAMESPACE} service {SERVICE}"))
        .unwrap();
    assert_eq!(service["spec"]["sessionAffinity"], "ClientIP");
}

#[test]
fn coredns_answers_with_the_service_for_edge_nodes_and_with_others_own_addresses() {
    let cluster = culvert();
    let service = service_address(cluster);
    until_node_is_at(cluster, "edge-1", PATIENCE, &[&service]);
    let dns = "names-dns";
    cluster.start_coredns(dns).unwrap();
    let control = cluster.control_plane().addresses()[0].to_string();
    for (name, address) in [
        ("edge-1", &service),
        ("edge-2", &service),
        ("control-plane", &control),
    ] {
        wait_until(&format!("{name} is {address}"), PATIENCE, || {
            let resolved = cluster.resolved(dns, name)?;
            Ok((resolved == *address).then_some(()))
        })
        .unwrap();
    }
    cluster.stop_coredns(dns).unwrap();
}

/// A server that publishes, without the rest of one.
struct Publisher {
    leading: watch::Sender<bool>,
    published: PublicationReader,
    _task: AbortOnDropHandle<()>,
}

impl Publisher {
    async fn start(place: &Place, listing: Listing) -> Self {
        let client = access().await.client;
        let (events, _writer) = Events::new(client.clone(), "test");
        let leading = watch::Sender::new(false);
        let (publication, published) = Publication::new(PublicationOptions {
            client,
            dns_config: format!("{}/names", place.namespace).parse().unwrap(),
            internal_service: format!("{}/internal", place.namespace).parse().unwrap(),
            listening: ListeningPorts::default(),
            listings: watch::Sender::new(Some(Arc::new(listing))).subscribe(),
            events,
            leading: leading.subscribe(),
        });
        let task = tokio::spawn(publication.run(CancellationToken::new()));
        Self {
            leading,
            published,
            _task: AbortOnDropHandle::new(task),
        }
    }

    async fn lead_until_all_is_there(&mut self) {
        self.leading.send_replace(true);
        api::until("names", &mut self.published.names, |names| {
            names.entries == 2
        })
        .await;
        api::until("ports", &mut self.published.ports, |ports| {
            ports.entries == 3
        })
        .await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.leading.send_replace(false);
    }

    fn writes(&self) -> [u64; 2] {
        [
            self.published.names.borrow().writes,
            self.published.ports.borrow().writes,
        ]
    }
}

#[test]
fn of_two_leaders_one_after_the_other_the_second_has_nothing_to_write() {
    let place = Place::new("names-leaders");
    let internal = json!({
        "apiVersion": "v1",
        "spec": { "ports": [{ "name": "tcp", "port": 10262 }] },
    });
    place.apply("Service", "internal", internal);
    let listed = |name: &str, place: NodePlace| (name.parse().unwrap(), place);
    let direct = NodePlace::Direct(vec!["198.51.100.1".parse().unwrap()]);
    let nodes = [listed("c1", direct), listed("e1", NodePlace::Tunnelled)];
    let listing = Listing {
        nodes: nodes.into_iter().collect(),
        ports: Some([(TunnelPort::new(9100).unwrap(), Scheme::Http)].into()),
    };
    in_control_plane(async {
        let mut first = Publisher::start(&place, listing.clone()).await;
        let mut second = Publisher::start(&place, listing).await;
        first.lead_until_all_is_there().await;
        assert_eq!(first.writes(), [1, 1]);
        second.lead_until_all_is_there().await;
        assert_eq!(second.writes(), [0, 0]);
        first.lead_until_all_is_there().await;
        assert_eq!(first.writes(), [1, 1]);
    });
}
