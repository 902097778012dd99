//! A server that takes no agents, with the rights that the manifests give to one on a cloud node. It runs on the
//! control plane's machine as if that were another, as the only pod there with that service account.

use culvert_tests::Daemon;
use culvert_tests::cluster::{AnotherServer, CULVERT_NAMESPACE, Cluster, repository, wait_until};
use serde_json::json;

use crate::stage::{PATIENCE, culvert, relayed};
use crate::tidying::tidied;

const OVERLAY: &str = "deploy/kubernetes/overlays/cloud-workers";
const ACCOUNT: &str = "culvert-relay";
const POD: &str = "relay";

/// The service account, what it may do, and a pod that has it.
struct Rights<'a>(&'a Cluster);

impl<'a> Rights<'a> {
    fn given(cluster: &'a Cluster) -> Self {
        let this = Self(cluster);
        cluster.kubectl(["apply", "-f", &rbac()]).unwrap();
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": POD, "namespace": CULVERT_NAMESPACE },
            "spec": {
                "serviceAccountName": ACCOUNT,
                "nodeName": "control-plane",
                "tolerations": [{ "operator": "Exists" }],
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "sleep",
                    "image": culvert_tests::cluster::BUSYBOX,
                    "imagePullPolicy": "Never",
                    "command": ["sleep", "100000"],
                }],
            },
        });
        let file = cluster.directory().root().join("relay-pod.json");
        std::fs::write(&file, pod.to_string()).unwrap();
        cluster
            .kubectl(["apply", "-f", file.to_str().unwrap()])
            .unwrap();
        this
    }

    fn may(&self, what: &str) -> bool {
        let account = format!("--as=system:serviceaccount:{CULVERT_NAMESPACE}:{ACCOUNT}");
        let words = ["auth", "can-i", &account].into_iter();
        // It says no with an exit code, too.
        let said = self.0.kubectl(words.chain(what.split(' ')));
        said.is_ok_and(|said| said.trim() == "yes")
    }
}

impl Drop for Rights<'_> {
    fn drop(&mut self) {
        let pod = ["delete", "pod", POD, "-n", CULVERT_NAMESPACE, "--force"];
        let gone = self.0.kubectl(pod);
        let rights = ["delete", "-f", &rbac()];
        tidied(
            "the relay's rights stay",
            gone.and(self.0.kubectl(rights)).map(drop),
        );
    }
}

fn rbac() -> String {
    let file = repository().join(OVERLAY).join("relay-rbac.yaml");
    file.to_str().unwrap().to_owned()
}

fn start(relay: &AnotherServer<'_>) -> Daemon {
    relay
        .start_as("--relay-only --node-name control-plane")
        .unwrap()
}

#[test]
fn clients_of_a_server_without_agents_are_carried_by_the_one_that_has_them() {
    let cluster = culvert();
    let rights = Rights::given(cluster);
    let account = (CULVERT_NAMESPACE, ACCOUNT);
    let kubeconfig = cluster
        .service_account_kubeconfig(account, Some(POD))
        .unwrap();
    let relay = AnotherServer::named(cluster, "relay", &kubeconfig).unwrap();
    let before = relayed("answered");
    let mut server = start(&relay);
    wait_until("a kubelet answers through the servers", PATIENCE, || {
        Ok((relay.asks_a_kubelet()? == "401").then_some(()))
    })
    .unwrap();
    assert!(relayed("answered") > before);
    let status = relay.status().unwrap();
    assert!(status.sessions.is_empty());
    // It may follow the endpoints of Services.
    let redirect = status.redirect.unwrap();
    assert_eq!(redirect.services_trouble, None);
    let not_ready: Vec<_> = status.conditions.iter().filter(|one| !one.ready).collect();
    assert!(not_ready.is_empty(), "{not_ready:?}");
    for needless in [
        "update certificatesigningrequests/approval",
        "approve signers/kubernetes.io/kube-apiserver-client",
        "create leases -n culvert",
        "patch leases -n culvert",
        "create events.events.k8s.io -n default",
        "patch configmaps/yurt-tunnel-nodes -n kube-system",
        "patch services/x-tunnel-server-internal-svc -n kube-system",
        "get secrets -n kube-system",
    ] {
        assert!(!rights.may(needless), "{needless}");
    }
    assert!(server.stop(PATIENCE).unwrap().success());

    // What it was given is kept: the next one needs no signer.
    let mut server = start(&relay);
    wait_until(
        "a kubelet answers through the servers again",
        PATIENCE,
        || Ok((relay.asks_a_kubelet()? == "401").then_some(())),
    )
    .unwrap();
    assert!(server.stop(PATIENCE).unwrap().success());
}
