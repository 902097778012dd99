//! Services with edge nodes among their endpoints, beside the kube-proxy that every machine runs: from the control
//! plane itself, and from a pod on it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use culvert_tests::Launch;
use culvert_tests::cluster::{Cluster, wait_until};
use serde_json::{Value, json};

use crate::callers::{answer, as_user};
use crate::pods;
use crate::stage::culvert;
use crate::tidying::tidied;
use crate::tunnelled::Tunnelled;

const NAME: &str = "kubelets";
const CLOUD: &str = "10.77.0.1";
const EDGE_1: &str = "10.78.0.11";
const EDGE_2: &str = "10.78.0.12";
/// Enough connects for each of three endpoints to get some.
const MANY: usize = 40;
const AT_ONCE: Duration = Duration::from_secs(2);

/// A Service of kubelets as prometheus-operator makes it, with a `ClusterIP`; removed with its guard.
struct Kubelets {
    cluster: &'static Cluster,
    cluster_ip: String,
}

impl Kubelets {
    fn new(cluster: &'static Cluster) -> Self {
        let port = json!({ "name": "https-metrics", "port": 10250, "protocol": "TCP" });
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": NAME, "labels": { "k8s-app": "kubelet" } },
            "spec": { "type": "ClusterIP", "ports": [port] },
        });
        cluster.apply(NAME, &service).unwrap();
        let made = cluster.get(&format!("service {NAME}")).unwrap();
        let cluster_ip = made["spec"]["clusterIP"].as_str().unwrap().to_owned();
        Self {
            cluster,
            cluster_ip,
        }
    }

    /// Its endpoints, and whether they are ready.
    fn lead_to(&self, endpoints: &[(&str, bool)]) {
        let endpoint = |(address, ready): &(&str, bool)| {
            json!({
                "addresses": [address],
                "conditions": { "ready": ready, "serving": ready, "terminating": false },
                "targetRef": { "kind": "Node", "name": address },
            })
        };
        let endpoints: Vec<_> = endpoints.iter().map(endpoint).collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": NAME,
                "labels": {
                    "kubernetes.io/service-name": NAME,
                    "endpointslice.kubernetes.io/managed-by": "prometheus-operator",
                },
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{ "name": "https-metrics", "port": 10250, "protocol": "TCP" }],
        });
        self.cluster
            .apply(&format!("{NAME}-slice"), &slice)
            .unwrap();
    }

    /// A curl on the control plane that takes the answer of no other node than this, where one is named.
    fn curl(&self, node: Option<&str>, path: &str) -> Launch {
        let curl = self.cluster.control_plane().launch("curl");
        let curl = curl.words("--silent --show-error --max-time 10");
        let curl = match node {
            None => curl
                .arg("--insecure")
                .arg(format!("https://{}:10250{path}", self.cluster_ip)),
            Some(node) => curl
                .arg("--cacert")
                .arg(self.cluster.directory().pki().join("ca.crt"))
                .arg("--connect-to")
                .arg(format!("{node}:10250:{}:10250", self.cluster_ip))
                .arg(format!("https://{node}:10250{path}")),
        };
        as_user(curl, self.cluster, Some("admin"))
    }

    /// The nodes that answered so many requests.
    fn answering(&self, requests: usize) -> BTreeSet<String> {
        let of_metrics = |metrics: String| {
            let name = metrics.split_once("kubelet_node_name{node=\"").unwrap().1;
            name.split_once('"').unwrap().0.to_owned()
        };
        let answers = (0..requests).map(|_| answer(&self.curl(None, "/metrics")));
        answers.map(of_metrics).collect()
    }

    fn until_it_leads_to(&self, tunnelled: Option<u64>) {
        wait_until("the server knows its endpoints", AT_ONCE, || {
            Ok((self.tunnelled()? == tunnelled).then_some(()))
        })
        .unwrap();
    }

    /// How many of its endpoints are tunnelled nodes', as `culvert status` has it; `None` if it is not caught.
    fn tunnelled(&self) -> Result<Option<u64>> {
        let status = self.cluster.culvert_status()?;
        let redirect = &status["redirect"];
        assert_eq!(redirect["services_trouble"], Value::Null);
        let services = redirect["services"].as_array();
        let name = format!("default/{NAME}");
        let ours = services.and_then(|all| all.iter().find(|one| one["service"] == name));
        Ok(ours.and_then(|one| one["tunnelled"].as_u64()))
    }
}

impl Drop for Kubelets {
    fn drop(&mut self) {
        let objects = ["service", "endpointslice"].map(|kind| format!("{kind}/{NAME}"));
        let words = ["delete", "--ignore-not-found"].into_iter();
        let words = words.chain(objects.iter().map(String::as_str));
        tidied("the Service stays", self.cluster.kubectl(words).map(drop));
    }
}

#[test]
fn a_service_of_kubelets_leads_to_those_at_the_edge() {
    let cluster = culvert();
    let kubelets = Kubelets::new(cluster);
    kubelets.lead_to(&[(EDGE_1, true)]);
    kubelets.until_it_leads_to(Some(1));
    let tunnelled = Tunnelled::now();
    assert_eq!(answer(&kubelets.curl(Some("edge-1"), "/healthz")), "ok");
    tunnelled.at_least(1000);

    let pod = "client-of-services";
    pods::sleeping(cluster, pod, "control-plane");
    let ask = format!(
        "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {} 10250",
        kubelets.cluster_ip
    );
    let said = cluster.kubectl(["exec", pod, "--", "sh", "-c", &ask]);
    assert!(said.unwrap().contains("HTTP request to an HTTPS server"));
    pods::delete(cluster, pod);

    // A kubelet of the cloud among them is dialled itself.
    let nodes = |names: &[&str]| {
        names
            .iter()
            .map(ToString::to_string)
            .collect::<BTreeSet<_>>()
    };
    kubelets.lead_to(&[(EDGE_1, true), (EDGE_2, true), (CLOUD, true)]);
    kubelets.until_it_leads_to(Some(2));
    let all = nodes(&["control-plane", "edge-1", "edge-2"]);
    assert_eq!(kubelets.answering(MANY), all);
    kubelets.lead_to(&[(EDGE_1, false), (EDGE_2, true), (CLOUD, true)]);
    kubelets.until_it_leads_to(Some(1));
    let ready = nodes(&["control-plane", "edge-2"]);
    assert_eq!(kubelets.answering(MANY), ready);

    // Without any at the edge it is kube-proxy's again, which knows the others.
    kubelets.lead_to(&[(EDGE_1, false), (CLOUD, true)]);
    kubelets.until_it_leads_to(None);
    assert_eq!(kubelets.answering(4), nodes(&["control-plane"]));
}
