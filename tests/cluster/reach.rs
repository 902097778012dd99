//! Who learns from the API server where servers are and how many: agents and servers in this process, in the
//! control plane's network, with objects of a namespace of their own.

use std::collections::BTreeSet;
use std::time::Duration;

use culvert_tests::cluster::API_SERVER;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tunnel_user::kubernetes::{
    Access, Membership, MembershipOptions, ObjectName, OwnNode, ServerAddresses,
    ServerAddressesOptions, ServerNames, ServerNamesOptions,
};

use crate::api::{Place, access, in_control_plane, until};
use crate::stage::{PATIENCE, cluster};

impl Place {
    fn service(&self) -> ObjectName {
        format!("{}/servers", self.namespace).parse().unwrap()
    }

    fn patch_status(&self, status: &Value) {
        let patch = json!({ "status": status }).to_string();
        let namespace = self.namespace.as_str();
        let what = [
            "patch",
            "service",
            "servers",
            "--subresource=status",
            "--type=merge",
        ];
        let how = ["-n", namespace, "-p", &patch];
        cluster().kubectl([what.as_slice(), &how].concat()).unwrap();
    }
}

struct Member {
    counts: watch::Receiver<u32>,
    in_charge: watch::Sender<bool>,
    leave: CancellationToken,
    running: AbortOnDropHandle<()>,
}

impl Member {
    fn start(access: &Access, place: &Place, machine: &str, server_id: &str) -> Self {
        let (members, known) = Membership::new(MembershipOptions {
            address: None,
            counts: true,
            client: access.client.clone(),
            namespace: place.namespace.clone(),
            machine: machine.parse().unwrap(),
            server_id: server_id.to_owned(),
        });
        let (in_charge, charge) = watch::channel(true);
        let leave = CancellationToken::new();
        let running = tokio::spawn(members.run(charge, leave.clone()));
        Self {
            counts: known.count,
            in_charge,
            leave,
            running: AbortOnDropHandle::new(running),
        }
    }

    async fn counts(&mut self, servers: u32) {
        until("the number of servers", &mut self.counts, |count| {
            *count == servers
        })
        .await;
    }

    async fn leave(self) {
        self.leave.cancel();
        timeout(PATIENCE, self.running).await.unwrap().unwrap();
    }
}

#[test]
fn servers_count_each_other_and_a_successor_is_not_one_more() {
    let place = Place::new("count");
    in_control_plane(async {
        let access = access().await;
        let mut first = Member::start(&access, &place, "m1", "s-1");
        let mut second = Member::start(&access, &place, "m2", "s-2");
        first.counts(2).await;
        second.counts(2).await;

        first.counts.mark_unchanged();
        second.in_charge.send_replace(false);
        let mut successor = Member::start(&access, &place, "m2", "s-2b");
        successor.counts(2).await;
        // Not another number, but news.
        timeout(PATIENCE, first.counts.changed())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(*first.counts.borrow(), 2);
        second.leave().await;
        let leases = cluster().get("leases -n count").unwrap();
        let holders: BTreeSet<_> = leases["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|lease| lease["spec"]["holderIdentity"].as_str().unwrap())
            .collect();
        assert_eq!(holders, BTreeSet::from(["s-1", "s-2b"]));

        successor.leave().await;
        first.counts(1).await;
    });
}

#[test]
fn a_server_that_dies_is_counted_until_its_lease_ends_and_without_the_api_server_nobody_is_gone() {
    let place = Place::new("deaths");
    in_control_plane(async {
        let access = access().await;
        let mut first = Member::start(&access, &place, "m1", "s-1");
        let second = Member::start(&access, &place, "m2", "s-2");
        first.counts(2).await;
        let cluster = cluster();
        cluster.stop(API_SERVER).unwrap();
        // Longer than a Lease lives.
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(*first.counts.borrow(), 2);
        cluster.start_api_server().unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(*first.counts.borrow(), 2);
        drop(second);
        first.counts(1).await;
    });
}

#[test]
fn agents_dial_what_the_service_says_and_certificates_follow() {
    let place = Place::new("reach");
    let state = tempfile::tempdir().unwrap();
    in_control_plane(async {
        let access = access().await;
        let options = || ServerAddressesOptions {
            client: access.client.clone(),
            service: place.service(),
            state_dir: state.path().join("agent"),
        };
        let following = ServerAddresses::new(options()).unwrap();
        let (mut addresses, mut problem) = (following.addresses(), following.problem());
        let (naming, mut names) = ServerNames::new(ServerNamesOptions {
            client: access.client.clone(),
            service: place.service(),
            internal_service: "reach/internal".parse().unwrap(),
            dns: Vec::new(),
            ips: Vec::new(),
        });
        let end = CancellationToken::new();
        let _running = [
            AbortOnDropHandle::new(tokio::spawn(following.run(end.clone()))),
            AbortOnDropHandle::new(tokio::spawn(naming.run(end.clone()))),
        ];
        let says = |told: &Option<String>| {
            told.as_ref()
                .is_some_and(|told| told.contains("does not exist"))
        };
        until("the reason", &mut problem, says).await;

        let ports = json!([{ "name": "tcp", "port": 10262, "nodePort": 31262 }]);
        let service =
            |kind: &str| json!({ "apiVersion": "v1", "spec": { "type": kind, "ports": ports } });
        place.apply("Service", "servers", service("NodePort"));
        place.apply("EndpointSlice", "nodes", json!({
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": { "labels": { "kubernetes.io/service-name": "servers" } },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": ["10.77.0.1"], "nodeName": "control-plane", "conditions": { "ready": true } }],
        }));
        let mut dialled = async |expected: &[&str]| {
            let expected: Vec<_> = expected.iter().map(|addr| addr.parse().unwrap()).collect();
            until("what is dialled", &mut addresses, |addresses| {
                *addresses == expected
            })
            .await;
        };
        dialled(&["10.77.0.1:31262"]).await;
        until("the problem ends", &mut problem, Option::is_none).await;

        place.apply("Service", "servers", service("LoadBalancer"));
        place.patch_status(&json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.7" }, { "hostname": "lb.example" }] } }));
        dialled(&["203.0.113.7:10262", "lb.example:10262"]).await;
        let cluster = cluster();
        let annotation = "x-tunnel-server-external-addr=tunnel.example:443";
        cluster
            .kubectl(["annotate", "service", "servers", annotation, "-n", "reach"])
            .unwrap();
        dialled(&[
            "203.0.113.7:10262",
            "lb.example:10262",
            "tunnel.example:443",
        ])
        .await;
        until("the names", &mut names, |names| {
            let wanted = [
                "control-plane",
                "lb.example",
                "tunnel.example",
                "servers.reach.svc",
            ];
            names.as_ref().is_some_and(|names| {
                wanted.iter().all(|name| names.dns.contains(*name))
                    && names.ips.contains(&"203.0.113.7".parse().unwrap())
            })
        })
        .await;

        // A Service that is gone takes nothing away, nor does a start without an answer.
        place.delete("service servers");
        tokio::time::sleep(Duration::from_secs(2)).await;
        dialled(&[
            "203.0.113.7:10262",
            "lb.example:10262",
            "tunnel.example:443",
        ])
        .await;
        let again = ServerAddresses::new(options()).unwrap();
        assert_eq!(*again.addresses().borrow(), *addresses.borrow());
        assert!(names.borrow().as_ref().unwrap().dns.contains("lb.example"));
    });
}

#[test]
fn an_agent_knows_its_nodes_addresses() {
    in_control_plane(async {
        let access = access().await;
        let edge = cluster().edge(0);
        let (own, mut names) = OwnNode::new(access.client, edge.name().parse().unwrap());
        let _running = AbortOnDropHandle::new(tokio::spawn(own.run(CancellationToken::new())));
        let expected: BTreeSet<_> = edge.addresses().into_iter().collect();
        until("the addresses", &mut names, |names| {
            names.as_ref().is_some_and(|names| names.ips == expected)
        })
        .await;
    });
}
