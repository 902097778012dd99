//! What a server learns of nodes and ports from the API server: a source in this process, and Nodes with a label of
//! their own that no machine stands behind.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_tests::cluster::API_SERVER;
use prometheus_client::metrics::gauge::Gauge;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tunnel_user::kubernetes::events::Events;
use tunnel_user::kubernetes::source::{
    LiveSessions, Origin, Source, SourceHealth, SourceOptions, WatchHealth,
};
use tunnel_user::model::{NodeNetworks, PortSet, SnapshotReader};

use crate::api::{Place, access, in_control_plane, until};
use crate::objects::give_addresses;
use crate::stage::cluster;

/// A change has to be in a snapshot within this time after kubectl has returned.
const AT_ONCE: Duration = Duration::from_secs(1);
const LABEL: &str = "culvert.test/tunnelled";

/// A Node object, gone with the test.
struct FakeNode(&'static str);

impl FakeNode {
    fn new(name: &'static str, tunnelled: bool, address: &str) -> Self {
        let object = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": name, "labels": { LABEL: tunnelled.to_string() } },
            // So that nothing is ever started on it.
            "spec": { "taints": [{ "key": LABEL, "effect": "NoExecute" }, { "key": LABEL, "effect": "NoSchedule" }] },
        });
        cluster().apply(name, &object).unwrap();
        let node = Self(name);
        node.move_to(address);
        node
    }

    fn move_to(&self, address: &str) {
        self.state(&[address]);
    }

    /// Writes its status, as its kubelet could.
    fn state(&self, addresses: &[&str]) {
        give_addresses(cluster(), self.0, addresses).unwrap();
    }

    fn label(&self, tunnelled: bool) {
        let label = format!("{LABEL}={tunnelled}");
        cluster()
            .kubectl(["label", "--overwrite", "node", self.0, &label])
            .unwrap();
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        // The cluster may be in whatever state the test left it in.
        let _ = cluster().kubectl(["delete", "node", self.0, "--ignore-not-found"]);
    }
}

/// A source that runs, and writes Events.
struct Running {
    snapshots: SnapshotReader,
    health: watch::Receiver<SourceHealth>,
    _tasks: [AbortOnDropHandle<()>; 3],
}

impl Running {
    async fn start(place: &Place, state_dir: &Path) -> Self {
        let access = access().await;
        let (host, api_server) = access.api_server();
        let (events, writer) = Events::new(access.client.clone(), "test");
        let (source, snapshots, health) = Source::new(SourceOptions {
            client: access.client,
            selectors: vec![format!("{LABEL}=true").parse().unwrap()],
            ports_config: format!("{}/ports", place.namespace).parse().unwrap(),
            extra_ports: PortSet::new(),
            node_networks: NodeNetworks::default(),
            kubelet_ports: PortSet::new(),
            api_server,
            sessions: LiveSessions {
                name: Arc::new(|_, _| false),
                changes: watch::Sender::new(0).subscribe(),
            },
            reserved_ports: PortSet::new(),
            state_dir: state_dir.to_owned(),
            events,
            leading: watch::Sender::new(true).subscribe(),
            cloud_nodes: Gauge::default(),
        })
        .unwrap();
        let end = CancellationToken::new();
        let tasks = [
            AbortOnDropHandle::new(tokio::spawn(source.run(end.clone(), end.clone()))),
            AbortOnDropHandle::new(tokio::spawn(writer.run(end.clone()))),
            AbortOnDropHandle::new(tokio::spawn(host.run(end))),
        ];
        Self {
            snapshots,
            health,
            _tasks: tasks,
        }
    }

    /// Waits for exactly these owners of addresses, and says how long that took.
    async fn owners(&mut self, expected: &[(&str, &str)]) -> Duration {
        let started = Instant::now();
        let expected: BTreeSet<(IpAddr, String)> = expected
            .iter()
            .map(|(address, node)| (address.parse().unwrap(), (*node).to_owned()))
            .collect();
        until("the owners", &mut self.snapshots, |snapshot| {
            let owners = snapshot.owned_addresses();
            let owners = owners.map(|(address, node)| (address, node.name.to_string()));
            owners.collect::<BTreeSet<_>>() == expected
        })
        .await;
        started.elapsed()
    }

    /// The same with the ports besides the kubelet's.
    async fn ports(&mut self, expected: &[u16]) -> Duration {
        let started = Instant::now();
        until("the ports", &mut self.snapshots, |snapshot| {
            let ports = snapshot.ports().iter().map(|port| port.number());
            ports
                .filter(|port| ![10250, 10255].contains(port))
                .collect::<Vec<_>>()
                == expected
        })
        .await;
        started.elapsed()
    }

    async fn until_followed(&mut self) {
        until("the watches", &mut self.health, |health| {
            let connected = [&health.nodes, &health.ports_config];
            let connected = connected.map(|watch| *watch == WatchHealth::Connected);
            connected == [true, true] && health.origin == Origin::ApiServer
        })
        .await;
    }
}

fn config(data: &Value) -> Value {
    json!({ "apiVersion": "v1", "data": data })
}

/// Whether `kubectl describe` shows this within a while.
async fn described(what: &str, words: &str) {
    let mut last = String::new();
    for _ in 0..100 {
        let arguments = format!("describe {what}");
        last = cluster().kubectl(arguments.split(' ')).unwrap();
        if last.contains(words) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{what} does not show {words:?}:\n{last}");
}

#[test]
fn nodes_come_change_and_go_at_once_and_a_shared_address_stays_the_firsts() {
    let place = Place::new("source-nodes");
    let state = tempfile::tempdir().unwrap();
    in_control_plane(async {
        let mut source = Running::start(&place, state.path()).await;
        source.until_followed().await;
        let one = FakeNode::new("fake-1", true, "198.51.100.1");
        assert!(source.owners(&[("198.51.100.1", "fake-1")]).await < AT_ONCE);
        one.move_to("198.51.100.11");
        assert!(source.owners(&[("198.51.100.11", "fake-1")]).await < AT_ONCE);

        let other = FakeNode::new("fake-2", true, "198.51.100.11");
        described(
            "node fake-2",
            "198.51.100.11 of fake-2 is that of fake-1, which had it before and keeps it",
        )
        .await;
        source.owners(&[("198.51.100.11", "fake-1")]).await;
        other.label(false);
        tokio::time::sleep(AT_ONCE).await;
        assert_eq!(source.snapshots.borrow().nodes().len(), 1);
        source.owners(&[("198.51.100.11", "fake-1")]).await;

        other.label(true);
        one.move_to("198.51.100.12");
        let both = [("198.51.100.11", "fake-2"), ("198.51.100.12", "fake-1")];
        assert!(source.owners(&both).await < AT_ONCE, "given up");
        drop(other);
        assert!(source.owners(&[("198.51.100.12", "fake-1")]).await < AT_ONCE);
        one.label(false);
        assert!(source.owners(&[]).await < AT_ONCE);
        assert!(source.snapshots.borrow().nodes().is_empty());
    });
}

#[test]
fn a_kubelet_that_claims_what_is_others_gets_nothing_and_takes_nothing() {
    let place = Place::new("source-claims");
    let state = tempfile::tempdir().unwrap();
    let victims: Vec<String> = (1..=60).map(|n| format!("198.51.100.{n}")).collect();
    let victims: Vec<&str> = victims.iter().map(String::as_str).collect();
    let cluster_ip = |service: &str| {
        let words = [
            "-n",
            "default",
            "get",
            "service",
            service,
            "-o",
            "jsonpath={.spec.clusterIP}",
        ];
        cluster().kubectl(words).unwrap()
    };
    let endpoints = [
        "-n",
        "default",
        "get",
        "endpointslices",
        "kubernetes",
        "-o",
        "jsonpath={.endpoints[0].addresses[0]}",
    ];
    let endpoint = cluster().kubectl(endpoints).unwrap();
    in_control_plane(async {
        let mut source = Running::start(&place, state.path()).await;
        source.until_followed().await;
        let victim = FakeNode::new("fake-victim", true, victims[0]);
        victim.state(&victims);
        let kept: Vec<_> = victims.iter().map(|ip| (*ip, "fake-victim")).collect();
        source.owners(&kept).await;

        let thief = FakeNode::new("fake-thief", true, victims[0]);
        let service = cluster_ip("kubernetes");
        let mut all = victims.clone();
        all.extend([service.trim(), endpoint.trim(), "203.0.113.9"]);
        thief.state(&all);
        let mut expected = kept.clone();
        expected.push(("203.0.113.9", "fake-thief"));
        source.owners(&expected).await;
        assert_eq!(source.snapshots.borrow().conflicts().len(), 0);
        described("node fake-thief", "SharedNodeAddress").await;
        described("node fake-thief", "InvalidNodeAddress").await;

        // Without a word from the API server about the past, and with it gone, too.
        tokio::time::sleep(Duration::from_secs(2)).await;
        drop(source);
        let mut source = Running::start(&place, state.path()).await;
        source.owners(&expected).await;
        source.until_followed().await;
        source.owners(&expected).await;
    });
}

#[test]
fn ports_follow_the_config_map_and_outlive_it() {
    let place = Place::new("source-ports");
    let state = tempfile::tempdir().unwrap();
    in_control_plane(async {
        let mut source = Running::start(&place, state.path()).await;
        source.until_followed().await;
        source.ports(&[]).await;
        let data =
            json!({ "dnat-ports-pair": "9100=10264, 9x=10264", "localhost-proxy-ports": "10266" });
        place.apply("ConfigMap", "ports", config(&data));
        assert!(source.ports(&[9100, 10266]).await < AT_ONCE);
        assert_eq!(source.snapshots.borrow().loopback_ports().len(), 1);
        described(
            "configmap ports -n source-ports",
            "dnat-ports-pair: \"9x=10264\" left out",
        )
        .await;

        place.apply(
            "ConfigMap",
            "ports",
            config(&json!({ "http-proxy-ports": "9200, 70000" })),
        );
        assert!(source.ports(&[9200]).await < AT_ONCE);
        described(
            "configmap ports -n source-ports",
            "http-proxy-ports: \"70000\" left out",
        )
        .await;
        place.delete("configmap ports");
        tokio::time::sleep(AT_ONCE).await;
        source.ports(&[9200]).await;

        // Without a word from the API server about the past, too.
        drop(source);
        let mut source = Running::start(&place, state.path()).await;
        source.until_followed().await;
        source.ports(&[9200]).await;
        place.apply(
            "ConfigMap",
            "ports",
            config(&json!({ "http-proxy-ports": "" })),
        );
        assert!(source.ports(&[]).await < AT_ONCE);
    });
}

#[test]
fn without_the_api_server_nothing_changes_not_even_over_a_restart() {
    let place = Place::new("source-away");
    let state = tempfile::tempdir().unwrap();
    in_control_plane(async {
        place.apply(
            "ConfigMap",
            "ports",
            config(&json!({ "http-proxy-ports": "9100" })),
        );
        let node = FakeNode::new("fake-3", true, "198.51.100.3");
        let mut source = Running::start(&place, state.path()).await;
        let owners = [("198.51.100.3", "fake-3")];
        source.owners(&owners).await;
        source.ports(&[9100]).await;

        cluster().stop(API_SERVER).unwrap();
        until("the loss", &mut source.health, |health| {
            health.trouble().is_some()
        })
        .await;
        source.owners(&owners).await;
        // Its last state is on disk within a second.
        tokio::time::sleep(Duration::from_secs(2)).await;
        drop(source);
        let mut source = Running::start(&place, state.path()).await;
        until("the loss", &mut source.health, |health| {
            health.trouble().is_some()
        })
        .await;
        assert!(matches!(source.health.borrow().origin, Origin::Disk(_)));
        source.owners(&owners).await;
        source.ports(&[9100]).await;

        cluster().start_api_server().unwrap();
        source.until_followed().await;
        source.owners(&owners).await;
        node.move_to("198.51.100.33");
        assert!(source.owners(&[("198.51.100.33", "fake-3")]).await < AT_ONCE);
    });
}
