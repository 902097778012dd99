//! Who asks for a certificate that is not his gets none, and who comes with one that is no agent's gets no session.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use culvert_tests::cluster::{CULVERT_NAMESPACE, Cluster, wait_until};
use rcgen::SanType;
use serde_json::Value;
use time::OffsetDateTime;

use crate::crowd::Crowd;
use crate::pods;
use crate::requests::{Decision, Identity, Outcome, Request, Requests, agent_pod, dns};
use crate::stage::{PATIENCE, culvert, server_log};

/// Everybody who might ask. Whoever has a machine has edge-2.
struct Askers<'a> {
    cluster: &'a Cluster,
    kubelet: Identity<'a>,
    agent: Identity<'a>,
    /// The agents' service account, without saying in which pod.
    agent_of_no_pod: Identity<'a>,
    server: Identity<'a>,
    /// A service account that may make requests, and has no right to any of ours.
    stranger: Identity<'a>,
    admin: Identity<'a>,
}

impl<'a> Askers<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        pods::sleeping(cluster, "stranger", "edge-2");
        let binding = "create clusterrolebinding stranger --clusterrole=culvert-agent --serviceaccount=default:default";
        cluster.kubectl(binding.split(' ')).unwrap();
        let account = |name, pod: Option<&str>| {
            Identity::service_account(cluster, (CULVERT_NAMESPACE, name), pod)
        };
        let agent_pod = agent_pod(cluster, cluster.edge(1));
        Self {
            cluster,
            kubelet: Identity::of(cluster, "kubelet-edge-2"),
            agent: account("culvert-agent", Some(&agent_pod)),
            agent_of_no_pod: account("culvert-agent", None),
            server: account("culvert-server", None),
            stranger: Identity::service_account(cluster, ("default", "default"), Some("stranger")),
            admin: Identity::of(cluster, "admin"),
        }
    }
}

impl Drop for Askers<'_> {
    fn drop(&mut self) {
        let binding = ["delete", "clusterrolebinding", "stranger"];
        let pod = ["delete", "pod", "stranger", "--force"];
        let gone = self
            .cluster
            .kubectl(binding)
            .and_then(|_| self.cluster.kubectl(pod));
        if let Err(error) = gone {
            eprintln!("the stranger stays: {error:#}");
        }
    }
}

/// Who asks for what, and what is said about it.
type Attempt<'a> = (&'a Identity<'a>, Request, &'static str);

impl Askers<'_> {
    fn own(&self, name: &str) -> Request {
        Request::agent(name, self.cluster.edge(1))
    }

    fn of_other(&self, name: &str) -> Request {
        Request::agent(name, self.cluster.edge(0))
    }

    /// What can never become right.
    fn denied(&self) -> Vec<Attempt<'_>> {
        let Self {
            kubelet,
            agent,
            server,
            stranger,
            admin,
            ..
        } = self;
        let not_of_node = "may not ask for the certificate of node edge-1";
        let uri = SanType::URI("spiffe://cluster/edge-2".try_into().unwrap());
        let mail = SanType::Rfc822Name("edge-2@example.com".try_into().unwrap());
        let few = ["digital signature", "client auth"];
        let serving = ["digital signature", "key encipherment", "server auth"];
        let masters = ["system:nodes", MASTERS];
        let groups = ["openyurt:yurttunnel", "operators"];
        let subject = "the subject must be exactly";
        vec![
            (kubelet, self.of_other("other-node"), not_of_node),
            (agent, self.of_other("other-pod"), not_of_node),
            (
                kubelet,
                self.own("two-nodes").also(dns("edge-1")),
                "names exactly one node",
            ),
            (
                agent,
                self.own("wildcard").also(dns("*")),
                "names exactly one node",
            ),
            (
                kubelet,
                self.own("uri").also(uri),
                "neither host names nor addresses",
            ),
            (
                kubelet,
                self.own("mail").also(mail),
                "neither host names nor addresses",
            ),
            (
                kubelet,
                self.own("few-usages").with_usages(&few),
                "the usages must be exactly",
            ),
            (
                agent,
                self.own("serving").with_usages(&serving),
                "the usages must be exactly",
            ),
            (admin, self.own("admin"), "kubernetes-admin may not ask"),
            (
                stranger,
                self.own("stranger"),
                "default:default may not ask",
            ),
            (
                server,
                self.own("server-as-agent"),
                "culvert-server may not ask",
            ),
            (
                agent,
                Request::server("agent-as-server"),
                "only the server itself may",
            ),
            (
                admin,
                Request::server("admin-as-server"),
                "only the server itself may",
            ),
            (server, Request::server("masters-too").of(&masters), subject),
            (kubelet, self.own("groups").of(&groups), subject),
            (
                kubelet,
                self.own("authority").of_authority(),
                "it asks for more than names",
            ),
        ]
    }

    /// What may become right, should the cluster change.
    fn pending(&self) -> Vec<Attempt<'_>> {
        let Self {
            kubelet,
            agent_of_no_pod,
            server,
            ..
        } = self;
        let other = SanType::IpAddress(self.cluster.edge(0).addresses()[0]);
        let not_its_own = "does not have these addresses yet: 10.78.0.11";
        let not_said = "does not say on which node the pod";
        let not_theirs = "do not have these names yet: api.example";
        vec![
            (kubelet, self.own("other-address").also(other), not_its_own),
            (agent_of_no_pod, self.own("no-pod"), not_said),
            (
                server,
                Request::server("another-name").also(dns("api.example")),
                not_theirs,
            ),
        ]
    }

    /// What Kubernetes itself does not take.
    fn refused(&self) -> Vec<Attempt<'_>> {
        let masters = ["openyurt:yurttunnel", MASTERS];
        vec![
            (&self.kubelet, self.own("masters").of(&masters), MASTERS),
            (
                &self.agent,
                self.own("only-masters").of(&[MASTERS]),
                MASTERS,
            ),
            (
                &self.kubelet,
                Request::server("node-as-server"),
                "can only create a node CSR with CN=system:node:edge-2",
            ),
        ]
    }
}

const MASTERS: &str = "system:masters";

#[test]
fn a_forged_request_is_denied_with_the_reason_or_left_pending_and_the_right_one_is_approved() {
    let cluster = culvert();
    let requests = Requests::new(cluster, "forged");
    let askers = Askers::new(cluster);
    let before = approvals(cluster);
    for (who, request, cause) in askers.refused() {
        let refusal = format!("{:#}", requests.ask(who, &request).unwrap_err());
        let said = refusal.contains("forbidden") && refusal.contains(cause);
        assert!(said, "{}: {refusal}", request.name);
    }
    let (denied, pending) = (askers.denied(), askers.pending());
    for (who, request, _) in denied.iter().chain(&pending) {
        requests.ask(who, request).unwrap();
    }
    // Yurt-Tunnel's third kind of certificate, which is another approver's business.
    let elses = askers.own("elses").named("tunnel-proxy-client");
    requests.ask(&askers.kubelet, &elses).unwrap();
    // Its turn is last, as it came last.
    requests.ask(&askers.agent, &askers.own("right")).unwrap();
    let key = |request: &Request| format!("{}-000", request.name);
    let outcomes = wait_until("all are decided that will be", PATIENCE, || {
        let outcomes = requests.outcomes()?;
        let mut denied = denied
            .iter()
            .map(|(_, request, _)| &outcomes[&key(request)]);
        let decided = denied.all(|outcome| outcome.decision != Decision::None);
        Ok((decided && outcomes["right-000"].issued).then_some(outcomes))
    })
    .unwrap();
    let outcome = |request: &Request| &outcomes[&key(request)];
    for (_, request, reason) in &denied {
        let Outcome {
            decision, issued, ..
        } = outcome(request);
        let said = matches!(decision, Decision::Denied(message) if message.contains(reason));
        assert!(said && !issued, "{}: {decision:?}", request.name);
    }
    assert_eq!(outcome(&elses).decision, Decision::None);
    let log = server_log(cluster).unwrap();
    for (_, request, reason) in &pending {
        assert_eq!(
            outcome(request).decision,
            Decision::None,
            "{}",
            request.name
        );
        let name = key(request);
        let told = |line: &str| line.contains(&name) && line.contains(reason);
        assert!(log.lines().any(told), "{name}: {log}");
    }
    let after = approvals(cluster);
    let counted = |what| after[what].as_u64().unwrap() - before[what].as_u64().unwrap();
    assert_eq!(counted("denied"), denied.len() as u64);
    assert_eq!(counted("pending"), pending.len() as u64);
    assert_eq!(counted("approved"), 1);
}

fn approvals(cluster: &Cluster) -> Value {
    cluster.culvert_status().unwrap()["cluster"]["approvals"].clone()
}

#[test]
fn hundreds_of_nodes_that_ask_at_once_are_served_in_order_and_forgers_hold_nobody_up() {
    const FORGED: u32 = 50;
    const NODES: u8 = 200;
    let cluster = culvert();
    let requests = Requests::new(cluster, "crowd");
    let crowd = Crowd::new(cluster, NODES);
    let started = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let kubelet = Identity::of(cluster, "kubelet-edge-2");
            let forged = Request::agent("forged", cluster.edge(0));
            requests.ask_often(&kubelet, &forged, FORGED).unwrap();
        });
        scope.spawn(|| crowd.ask(&requests));
    });
    let asked = started.elapsed();
    let outcomes = wait_until("all are served", PATIENCE, || {
        let outcomes = requests.outcomes()?;
        let served = outcomes.iter().all(|(name, outcome)| {
            outcome.issued || name.starts_with("forged") && outcome.decision != Decision::None
        });
        Ok(served.then_some(outcomes))
    });
    let (outcomes, served) = (outcomes.unwrap(), started.elapsed());
    let expected = FORGED + u32::from(NODES);
    assert_eq!(outcomes.len(), usize::try_from(expected).unwrap());
    let approved = approved(&outcomes);
    let waits = approved.iter().map(|(created, at)| *at - *created);
    let longest = waits.max().unwrap();
    eprintln!(
        "{expected} asked in {asked:?}, all served after {served:?}, the longest wait was {longest}"
    );
    assert!(longest < Duration::from_secs(5), "{longest}");
    // Decisions are written a few at a time, and told in whole seconds.
    let in_order = approved
        .windows(2)
        .all(|pair| pair[1].1 + Duration::from_secs(1) >= pair[0].1);
    assert!(in_order, "{approved:?}");
    crowd.leave();
}

/// When each request was made and approved, in order; those of the forger were denied.
fn approved(outcomes: &BTreeMap<String, Outcome>) -> Vec<(OffsetDateTime, OffsetDateTime)> {
    let mut approved = Vec::new();
    for (name, outcome) in outcomes {
        let forged = name.starts_with("forged");
        match outcome.decision {
            Decision::Approved(at) if !forged => approved.push((outcome.created, at)),
            Decision::Denied(_) if forged => {}
            _ => panic!("{name}: {outcome:?}"),
        }
    }
    approved.sort();
    approved
}

/// Calls the agent port as an agent does; whether there was an answer, and what.
fn call(cluster: &Cluster, certificate: Option<&Path>) -> (bool, String) {
    let curl = cluster.edge(1).launch("curl");
    let mut curl = curl
        .words("--silent --show-error --max-time 10 --http2 --request POST --dump-header -")
        .words("--header content-type:application/grpc https://10.77.0.1:31008/AgentService/Connect --cacert")
        .arg(cluster.directory().pki().join("ca.crt"));
    if let Some(certificate) = certificate {
        curl = curl.arg("--cert").arg(certificate);
        let key = certificate.with_extension("key");
        if key.exists() {
            curl = curl.arg("--key").arg(key);
        }
    }
    let mut curl = curl.start().unwrap();
    let status = curl.wait(PATIENCE).unwrap();
    (status.success(), curl.output())
}

#[test]
fn a_certificate_of_a_kubelet_or_of_the_administrator_opens_no_session() {
    let cluster = culvert();
    let own = "var/lib/culvert-agent/pki/agent.pem";
    let own = cluster.edge(0).directory().join(own);
    let (answered, said) = call(cluster, Some(&own));
    assert!(
        answered && said.contains("agentid"),
        "an agent is asked who it is: {said}"
    );
    for who in ["kubelet-edge-2", "kubelet-edge-1", "admin"] {
        let certificate = cluster.directory().kubeconfig(who).with_extension("crt");
        let (answered, said) = call(cluster, Some(&certificate));
        assert!(!answered && !said.contains("grpc-status"), "{who}: {said}");
    }
    let (answered, said) = call(cluster, None);
    assert!(!answered && !said.contains("grpc-status"), "nobody: {said}");
}
