//! The cluster as it is without Culvert: sound, and cut off from its edge.

use std::net::IpAddr;

use culvert_tests::cluster::{Role, wait_until};

use crate::stage::{PATIENCE, cluster};
use crate::{observers, pods};

#[test]
fn three_nodes_are_ready_and_two_of_them_are_edge_nodes() {
    let cluster = cluster();
    let nodes = cluster.get("nodes").unwrap();
    let nodes = nodes["items"].as_array().unwrap();
    assert_eq!(nodes.len(), cluster.machines().len());
    for machine in cluster.machines() {
        let node = nodes
            .iter()
            .find(|node| node["metadata"]["name"] == machine.name())
            .unwrap();
        let addresses: Vec<IpAddr> = node["status"]["addresses"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|address| address["type"] == "InternalIP")
            .map(|address| address["address"].as_str().unwrap().parse().unwrap())
            .collect();
        assert_eq!(addresses, machine.addresses(), "{}", machine.name());
        let edge = node["metadata"]["labels"]["openyurt.io/is-edge-worker"] == "true";
        assert_eq!(edge, machine.role() == Role::Edge, "{}", machine.name());
    }
}

#[test]
fn logs_of_an_edge_pod_cannot_be_had_and_those_of_the_control_plane_can() {
    let cluster = cluster();
    let pods = ["control-plane", "edge-1", "edge-2"].map(|node| (node, format!("quiet-{node}")));
    for (node, pod) in &pods {
        pods::sleeping(cluster, pod, node);
    }
    let logs = |pod: &str| cluster.kubectl(["logs", pod]);
    let near = wait_until("logs of the near pod", PATIENCE, || {
        logs(&pods[0].1).map(Some)
    });
    assert!(near.unwrap().contains("hello from"));
    for (node, pod) in &pods[1..] {
        let refusal = format!("{:#}", logs(pod).unwrap_err());
        assert!(
            refusal.contains("network is unreachable"),
            "{node}: {refusal}"
        );
    }
    for (_, pod) in &pods {
        pods::delete(cluster, pod);
    }
}

#[test]
fn metrics_server_and_prometheus_see_the_control_plane_and_no_edge() {
    let cluster = cluster();
    cluster.start_metrics_server().unwrap();
    cluster.start_prometheus().unwrap();
    let top = wait_until("metrics of a node", PATIENCE, || {
        cluster.kubectl(["top", "nodes", "--no-headers"]).map(Some)
    });
    let top = top.unwrap();
    let line = |node: &str| top.lines().find(|line| line.starts_with(node)).unwrap();
    assert!(!line("control-plane").contains("<unknown>"), "{top}");
    assert!(line("edge-1").contains("<unknown>"), "{top}");
    wait_until("Prometheus has tried every node", PATIENCE, || {
        let up = observers::up(cluster, "kubelet")?;
        let seen: Vec<_> = up.iter().filter(|(_, up)| **up).collect();
        let tried = up.len() == cluster.machines().len();
        Ok((tried && seen == [(&"control-plane".to_owned(), &true)]).then_some(()))
    })
    .unwrap();
    cluster.stop("prometheus").unwrap();
    cluster.stop_metrics_server().unwrap();
}

#[test]
fn a_pod_of_the_edge_reaches_the_api_server_by_its_service() {
    let cluster = cluster();
    // It speaks TLS, and says so in plain text to whoever does not.
    let ask = "printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 10.96.0.1 443 | grep 'HTTPS server' && sleep 100000";
    pods::running(cluster, "asks", "edge-2", ask);
    wait_until("the pod has asked", PATIENCE, || {
        let pod = cluster.get("pod asks")?;
        let status = &pod["status"]["containerStatuses"][0];
        assert_eq!(status["restartCount"], 0, "it could not: {status}");
        Ok((status["started"] == true).then_some(()))
    })
    .unwrap();
    pods::delete(cluster, "asks");
}
