//! What is reached, and from where.

use std::time::Duration;

use anyhow::Result;
use culvert_tests::cluster::wait_until;

use super::Row;
use crate::stage::Stage;

pub(crate) const ROUTE: Row = Row {
    name: "needs a route to the edge",
    meaning: "the control plane has no route to its edge nodes at first. Where nothing works without one, it is given one that \
              ends at the NAT, which lets nothing through to the edge.",
    measure: route,
    always: true,
};

pub(crate) const PROXY_PATH: Row = Row {
    name: "`/api/v1/nodes/edge-1/proxy/metrics`",
    meaning: "the API server's way to a kubelet's own pages, by `kubectl get --raw`.",
    measure: proxy_path,
    always: false,
};

pub(crate) const POD: Row = Row {
    name: "a pod connects to the node's IP",
    meaning: "a pod of the control plane, in its own network namespace, connects to port 10250 of an edge node, as Prometheus in \
              a pod does.",
    measure: pod,
    always: false,
};

fn route(stage: &Stage) -> Result<String> {
    let without = wait_until("logs without a route", Duration::from_secs(20), || {
        stage.last_line().map(Some)
    });
    let Err(error) = without else {
        return Ok("no".into());
    };
    let error = format!("{error:#}");
    stage
        .cluster
        .lab()
        .control()
        .ip("route add 10.78.0.0/24 via 10.77.0.254")?;
    stage.settle()?;
    let cause = error.trim().rsplit(": ").next().unwrap_or_default();
    Ok(format!("yes, else {cause}"))
}

fn proxy_path(stage: &Stage) -> Result<String> {
    let path = "/api/v1/nodes/edge-1/proxy/metrics";
    let metrics = stage.cluster.kubectl(["get", "--raw", path])?;
    let own = metrics.contains("kubelet_node_name{node=\"edge-1\"} 1");
    crate::clients::expect(own, &metrics)?;
    Ok("works".into())
}

/// Whoever speaks no TLS to port 10250 is told so, by the kubelet and by a tunnel that ends TLS.
fn pod(stage: &Stage) -> Result<String> {
    let name = "near";
    let cluster = &stage.cluster;
    cluster.run_pod(name, "control-plane", "sleep 100000", false)?;
    let ask = format!(
        "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {} 10250 || echo no connection",
        stage.node_address()
    );
    let said = cluster.kubectl(["exec", name, "--", "sh", "-c", &ask]);
    cluster.delete_pod(name)?;
    let caught = said?.contains("HTTPS server");
    Ok(if caught {
        "works"
    } else {
        "not caught: no connection in 5 s"
    }
    .into())
}
