//! A Node whose `InternalIP` goes to and fro between two interfaces of its machine, as some cloud controllers have it
//! (<https://github.com/kubernetes/cloud-provider-aws/issues/890>).

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use culvert_tests::Daemon;
use culvert_tests::cluster::{Cluster, Machine, wait_until};
use serde_json::Value;

use crate::dials::get;
use crate::objects::give_addresses;
use crate::pods;
use crate::rotations::{exec, goes_on};
use crate::stage::{PATIENCE, culvert};

const NODE: &str = "edge-1";
const OTHER: &str = "10.78.0.71";
const ROUNDS: usize = 4;

#[test]
fn an_exec_outlives_flips_of_its_nodes_address_and_each_costs_one_request_at_most() {
    let cluster = culvert();
    let own = cluster.edge(0).addresses()[0];
    let _interface = SecondAddress::new(cluster.edge(0));
    pods::sleeping(cluster, "flips", NODE);
    let mut exec = exec(cluster, "flips");
    let before = agents_requests(cluster).unwrap();
    let mut node = Flipping { cluster, flips: 0 };
    for _ in 0..ROUNDS {
        node.until_reached_at(OTHER.parse().unwrap(), &mut exec);
        node.until_reached_at(own, &mut exec);
    }
    let logs = cluster.kubectl(["logs", "flips"]);
    assert!(logs.is_ok(), "{logs:?}");
    let now = agents_requests(cluster).unwrap();
    assert!(
        now <= before + node.flips,
        "{before}, then {now} requests, {} flips",
        node.flips
    );
    wait_until("the kubelet has its way again", PATIENCE, || {
        Ok((addresses_of(cluster)?.len() == 2).then_some(()))
    })
    .unwrap();
    pods::delete(cluster, "flips");
}

struct Flipping {
    cluster: &'static Cluster,
    flips: usize,
}

impl Flipping {
    /// Moves the node there, and again when its kubelet, which has an opinion of its own, has moved it back.
    fn until_reached_at(&mut self, address: IpAddr, exec: &mut Daemon) {
        wait_until("the node is reached by its address", PATIENCE, || {
            if addresses_of(self.cluster)?.first() != Some(&address.to_string()) {
                give_addresses(self.cluster, NODE, &[&address.to_string()])?;
                self.flips += 1;
            }
            get(self.cluster, &format!("http://{address}:10255/healthz"))?;
            Ok(Some(()))
        })
        .unwrap();
        goes_on(exec);
    }
}

/// The node's `InternalIP`s.
fn addresses_of(cluster: &Cluster) -> Result<Vec<String>> {
    let node = cluster.get(&format!("node {NODE}"))?;
    let addresses = node["status"]["addresses"].as_array();
    let internal = addresses.into_iter().flatten();
    let internal = internal.filter(|address| address["type"] == "InternalIP");
    let text = |one: &Value| one["address"].as_str().map(str::to_owned);
    Ok(internal.filter_map(text).collect())
}

/// How many certificates the node's agents have asked for.
fn agents_requests(cluster: &Cluster) -> Result<usize> {
    let all = cluster.get("certificatesigningrequests")?;
    let of_node = |request: &&Value| {
        let spec = &request["spec"];
        let user = spec["username"].as_str().unwrap_or_default();
        user.ends_with(":culvert-agent")
            && spec["extra"]["authentication.kubernetes.io/node-name"][0] == NODE
    };
    let count = all["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(of_node)
        .count();
    ensure!(
        count > 0,
        "no request of {NODE}'s agent is left, so they cannot be counted"
    );
    Ok(count)
}

/// On the machine's interface as long as it lives.
struct SecondAddress<'a>(&'a Machine);

impl<'a> SecondAddress<'a> {
    fn new(machine: &'a Machine) -> Self {
        let address = Self(machine);
        address.ip("add").unwrap();
        address
    }

    fn ip(&self, verb: &str) -> Result<()> {
        let ip = self.0.launch("ip");
        let line = format!("addr {verb} {OTHER}/24 dev eth0");
        ip.words(&line)
            .start()?
            .succeed(Duration::from_secs(10))
            .map(drop)
    }
}

impl Drop for SecondAddress<'_> {
    fn drop(&mut self) {
        crate::tidying::tidied("the second address stays", self.ip("del"));
    }
}
