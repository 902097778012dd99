//! What is in `deploy/` is what an API server takes, and each overlay does what it is for.

use std::fs;

use culvert_tests::cluster::repository;
use serde_json::Value;

use crate::stage::culvert;

const MANIFESTS: &str = "deploy/kubernetes";
const APPROVER: &str = "culvert-approver";

/// The objects of a directory as the API server would keep them.
fn taken(directory: &str) -> Vec<Value> {
    // Installed: else there would be no namespace for the servers' Leases.
    let cluster = culvert();
    let path = repository().join(MANIFESTS).join(directory);
    let rendered = cluster.kubectl(["kustomize", path.to_str().unwrap()]);
    let rendered = rendered
        .unwrap()
        .replace("nodeName: NODE\n", "nodeName: control-plane\n");
    let file = cluster.directory().root().join("rendered.yaml");
    fs::write(&file, rendered).unwrap();
    let file = file.to_str().unwrap();
    let apply = ["apply", "--dry-run=server", "-o", "json", "-f", file];
    let said = cluster.kubectl(apply).unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    match said["items"].as_array() {
        Some(objects) => objects.clone(),
        None => vec![said],
    }
}

fn names(objects: &[Value]) -> Vec<String> {
    let name = |object: &Value| {
        let [kind, name] = [&object["kind"], &object["metadata"]["name"]];
        format!("{}/{}", kind.as_str().unwrap(), name.as_str().unwrap())
    };
    objects.iter().map(name).collect()
}

fn pod<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    let mut objects = objects.iter();
    let object = objects
        .find(|object| object["metadata"]["name"] == name && !object["spec"]["template"].is_null());
    &object.unwrap()["spec"]["template"]["spec"]
}

fn container<'a>(objects: &'a [Value], name: &str) -> &'a Value {
    &pod(objects, name)["containers"][0]
}

#[test]
fn the_base_approves_and_needs_no_privileged_container() {
    let base = taken("base");
    let names = names(&base);
    assert!(
        names.contains(&format!("ClusterRoleBinding/{APPROVER}")),
        "{names:?}"
    );
    for name in ["culvert-server", "culvert-agent"] {
        let container = container(&base, name);
        assert_eq!(container["securityContext"]["privileged"], false, "{name}");
    }
    let args = &container(&base, "culvert-server")["args"];
    assert_eq!(*args, serde_json::json!(["server", "--kubernetes"]));
}

#[test]
fn nothing_is_pulled_from_localhost_and_the_profile_of_the_runtime_holds() {
    for (directory, names) in [
        ("base", &["culvert-server", "culvert-agent"][..]),
        ("remove", &["culvert-remove"]),
        ("migrate", &["culvert-migrate"]),
    ] {
        let objects = taken(directory);
        for name in names {
            let container = container(&objects, name);
            let image = container["image"].as_str().unwrap();
            assert!(image.starts_with("localhost/"), "{name}: {image}");
            assert_eq!(container["imagePullPolicy"], "Never", "{name}");
        }
    }
    let profile = |objects: &[Value], name: &str| {
        let security = &container(objects, name)["securityContext"];
        security["seccompProfile"]["type"].clone()
    };
    let (base, unconfined) = (taken("base"), taken("overlays/unconfined"));
    assert_eq!(profile(&base, "culvert-server"), "RuntimeDefault");
    assert_eq!(profile(&base, "culvert-agent"), "RuntimeDefault");
    assert_eq!(profile(&unconfined, "culvert-server"), "Unconfined");
    assert_eq!(profile(&unconfined, "culvert-agent"), "RuntimeDefault");
}

#[test]
fn of_the_hosts_pins_the_server_sees_its_own() {
    let base = taken("base");
    let volumes = pod(&base, "culvert-server")["volumes"].as_array().unwrap();
    let paths: Vec<_> = volumes
        .iter()
        .filter_map(|volume| volume["hostPath"]["path"].as_str())
        .collect();
    assert!(paths.contains(&"/sys/fs/bpf/culvert"), "{paths:?}");
    assert!(!paths.contains(&"/sys/fs/bpf"), "{paths:?}");
}

/// Asked of the API server, with the rules that are installed.
#[test]
fn service_accounts_may_do_what_they_need_and_no_more() {
    const AGENT: &str = "culvert-agent";
    const SERVER: &str = "culvert-server";
    const CONFIG: &str = "configmaps/yurt-tunnel-server-cfg";
    const NAMES: &str = "configmaps/yurt-tunnel-nodes";
    const SLICES: &str = "endpointslices.discovery.k8s.io";
    const INTERNAL: &str = "services/x-tunnel-server-internal-svc";
    for (account, namespace, verb, object, may) in [
        (AGENT, "kube-system", "watch", CONFIG, true),
        (AGENT, "kube-system", "watch", "configmaps/other", false),
        (AGENT, "kube-system", "list", "configmaps", false),
        (AGENT, "kube-system", "update", CONFIG, false),
        (AGENT, "", "create", "certificatesigningrequests", true),
        (AGENT, "", "get", "certificatesigningrequests/x", true),
        (AGENT, "", "list", "certificatesigningrequests", false),
        (AGENT, "", "watch", "certificatesigningrequests", false),
        (AGENT, "", "get", "nodes/edge-1", false),
        (AGENT, "", "list", "nodes", false),
        (AGENT, "", "watch", "nodes", false),
        (AGENT, "kube-system", "list", "secrets", false),
        (SERVER, "default", "create", "events.events.k8s.io", true),
        (
            SERVER,
            "kube-system",
            "create",
            "events.events.k8s.io",
            true,
        ),
        (
            SERVER,
            "kube-public",
            "create",
            "events.events.k8s.io",
            false,
        ),
        (SERVER, "", "watch", "certificatesigningrequests", true),
        (SERVER, "kube-system", "patch", NAMES, true),
        (SERVER, "kube-system", "delete", NAMES, false),
        (SERVER, "kube-system", "patch", CONFIG, false),
        (SERVER, "kube-system", "create", "configmaps", false),
        (SERVER, "kube-system", "patch", INTERNAL, true),
        (SERVER, "kube-system", "update", INTERNAL, false),
        (SERVER, "kube-system", "create", "services", false),
        (SERVER, "monitoring", "watch", SLICES, true),
        (SERVER, "monitoring", "list", "services", true),
        (SERVER, "monitoring", "create", SLICES, false),
        (AGENT, "monitoring", "list", SLICES, false),
        (
            SERVER,
            "kube-system",
            "patch",
            "services/x-tunnel-server-svc",
            false,
        ),
        (AGENT, "kube-system", "patch", NAMES, false),
        (AGENT, "kube-system", "patch", INTERNAL, false),
        (SERVER, "kube-system", "list", "secrets", false),
        // Where TLS does not end at the servers, nobody reviews anybody.
        (SERVER, "", "create", "tokenreviews", false),
        (SERVER, "", "create", "subjectaccessreviews", false),
        (SERVER, "default", "get", "pods", false),
        (AGENT, "", "create", "tokenreviews", false),
    ] {
        assert_eq!(
            can(account, namespace, verb, object),
            may,
            "{account}: {verb} {object}"
        );
    }
}

fn can(account: &str, namespace: &str, verb: &str, object: &str) -> bool {
    let user = format!("--as=system:serviceaccount:kube-system:{account}");
    let group = "--as-group=system:serviceaccounts";
    let mut words = vec!["auth", "can-i", verb, object, &user, group];
    if !namespace.is_empty() {
        words.extend(["-n", namespace]);
    }
    // It fails as well where the answer is no.
    culvert()
        .kubectl(words)
        .is_ok_and(|said| said.lines().any(|line| line == "yes"))
}

#[test]
fn privileged_makes_the_server_so_and_not_the_agent() {
    let overlay = taken("overlays/privileged");
    let security = &container(&overlay, "culvert-server")["securityContext"];
    assert_eq!(security["privileged"], true);
    assert!(security["capabilities"].is_null(), "{security}");
    let agent = container(&overlay, "culvert-agent");
    assert_eq!(agent["securityContext"]["privileged"], false);
    assert_eq!(names(&overlay), names(&taken("base")));
}

#[test]
fn no_approver_may_not_approve_and_does_not_try() {
    let overlay = taken("overlays/no-approver");
    let names = names(&overlay);
    assert!(
        !names.iter().any(|name| name.ends_with(APPROVER)),
        "{names:?}"
    );
    let args = &container(&overlay, "culvert-server")["args"];
    let args = args.as_array().unwrap();
    assert!(
        args.contains(&"--approve-certificates=false".into()),
        "{args:?}"
    );
}

#[test]
fn no_names_may_not_write_names_and_does_not_try() {
    let overlay = taken("overlays/no-names");
    let names = names(&overlay);
    assert!(
        !names.iter().any(|name| name.ends_with("culvert-names")),
        "{names:?}"
    );
    let args = &container(&overlay, "culvert-server")["args"];
    let args = args.as_array().unwrap();
    assert!(args.contains(&"--publish-names=false".into()), "{args:?}");
}

#[test]
fn https_terminate_lets_servers_review_and_nobody_list_pods() {
    let overlay = taken("overlays/https-terminate");
    let args = &container(&overlay, "culvert-server")["args"];
    let expected = serde_json::json!(["server", "--kubernetes", "--https-terminate"]);
    assert_eq!(*args, expected);
    let role = |name: &str| {
        let mut objects = overlay.iter();
        let role = objects
            .find(|object| object["kind"] == "ClusterRole" && object["metadata"]["name"] == name);
        role.unwrap()["rules"].as_array().unwrap().clone()
    };
    let verbs: Vec<_> = role("culvert-reviewer")
        .iter()
        .map(|rule| (rule["resources"][0].clone(), rule["verbs"].clone()))
        .collect();
    let create = serde_json::json!(["create"]);
    assert_eq!(
        verbs,
        [
            ("tokenreviews".into(), create.clone()),
            ("subjectaccessreviews".into(), create),
            ("pods".into(), serde_json::json!(["get"])),
        ]
    );
    let of_kubelets = role("culvert-proxy");
    let resources = of_kubelets[0]["resources"].as_array().unwrap();
    assert!(of_kubelets.len() == 1, "{of_kubelets:?}");
    let is_of_nodes = |resource: &Value| resource.as_str().unwrap().starts_with("nodes/");
    assert!(resources.iter().all(is_of_nodes), "{resources:?}");
    let binding = overlay
        .iter()
        .find(|object| object["metadata"]["name"] == "culvert-client-cas")
        .unwrap();
    assert_eq!(
        (&binding["kind"], &binding["metadata"]["namespace"]),
        (&"RoleBinding".into(), &"kube-system".into()),
        "no other namespace's"
    );
    let base = names(&taken("base"));
    for added in ["culvert-reviewer", "culvert-proxy", "culvert-client-cas"] {
        assert!(!base.iter().any(|name| name.ends_with(added)), "{base:?}");
    }
}

#[test]
fn the_job_of_remove_runs_on_the_node_that_is_named_whatever_its_runtime_knows() {
    let remove = taken("remove");
    assert_eq!(names(&remove), ["Job/culvert-remove"]);
    let pod = pod(&remove, "culvert-remove");
    assert_eq!(pod["nodeName"], "control-plane");
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["privileged"], true);
    assert_eq!(
        container["args"],
        serde_json::json!(["server", "--uninstall"])
    );
}

#[test]
fn alerts_fire_for_what_they_are_about_and_for_nothing_else() {
    let rules = repository().join("deploy/prometheus");
    let promtool = |verb: &str, file: &str| {
        let file = rules.join(file);
        culvert_tests::command::run("promtool", [verb, "rules", file.to_str().unwrap()]).unwrap()
    };
    for said in [
        promtool("check", "alerts.yaml"),
        promtool("test", "alerts_test.yaml"),
    ] {
        assert!(said.contains("SUCCESS"), "{said}");
    }
}

#[test]
fn cloud_workers_get_a_server_that_takes_no_agents_and_the_control_plane_its_own() {
    let workers = taken("overlays/cloud-workers");
    let names = names(&workers);
    for name in [
        "DaemonSet/culvert-server",
        "DaemonSet/culvert-relay",
        "DaemonSet/culvert-agent",
    ] {
        assert!(names.iter().any(|found| found == name), "{names:?}");
    }
    let args = &container(&workers, "culvert-relay")["args"];
    assert_eq!(
        *args,
        serde_json::json!(["server", "--kubernetes", "--relay-only"])
    );
    // Edge nodes cannot make themselves such nodes: kubelets may not set labels of this prefix.
    let terms =
        "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let terms = pod(&workers, "culvert-relay").pointer(terms).unwrap();
    let by_administrators = serde_json::json!({
        "key": "node-restriction.kubernetes.io/culvert-relay", "operator": "In", "values": ["true"],
    });
    for term in terms.as_array().unwrap() {
        let expressions = term["matchExpressions"].as_array().unwrap();
        assert!(expressions.contains(&by_administrators), "{term}");
    }
    // But for what is told of the server alone, they are the same.
    let [server, relay] = ["culvert-server", "culvert-relay"].map(|name| container(&workers, name));
    for same in [
        "image",
        "securityContext",
        "readinessProbe",
        "livenessProbe",
        "volumeMounts",
    ] {
        assert_eq!(server[same], relay[same], "{same}");
    }
    assert_eq!(
        pod(&workers, "culvert-server")["volumes"],
        pod(&workers, "culvert-relay")["volumes"]
    );
}

/// A variable of a container.
fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a str> {
    let variables = container["env"].as_array().unwrap();
    let variable = variables.iter().find(|one| one["name"] == name)?;
    variable["value"].as_str()
}

#[test]
fn beside_yurt_tunnel_nothing_of_its_own_is_touched_and_nodes_move_by_a_label() {
    let beside = taken("overlays/beside-yurt-tunnel");
    let names = names(&beside);
    for theirs in [
        "Service/x-tunnel-server-svc",
        "Service/x-tunnel-server-internal-svc",
        "ConfigMap/yurt-tunnel-nodes",
    ] {
        assert!(!names.contains(&theirs.to_owned()), "{names:?}");
    }
    let server = container(&beside, "culvert-server");
    for (name, value) in [
        ("CULVERT_AGENT_PORT", "10282"),
        ("CULVERT_GATE_POLICY", "bypass"),
        ("CULVERT_OFFLINE_NODES", "bypass"),
        ("CULVERT_STARTUP_GRACE", "0s"),
        ("CULVERT_APPROVE_CERTIFICATES", "false"),
        ("CULVERT_PUBLISH_NAMES", "false"),
    ] {
        assert_eq!(variable(server, name), Some(value), "{name}");
    }
    let agent = pod(&beside, "culvert-agent");
    assert_eq!(agent["nodeSelector"]["culvert.dev/moved"], "true");
    let after = taken("overlays/after-yurt-tunnel");
    let service = |name: &str| {
        let mut objects = after.iter();
        let service =
            objects.find(|one| one["kind"] == "Service" && one["metadata"]["name"] == name);
        let port = &service.unwrap()["spec"]["ports"][0];
        (port["nodePort"].clone(), port["targetPort"].clone())
    };
    let moving = service("culvert-moving-svc");
    assert_eq!(moving, (31009.into(), 10262.into()));
    assert_eq!(service("x-tunnel-server-svc"), (31008.into(), 10262.into()));
    assert_eq!(
        pod(&after, "culvert-agent")["nodeSelector"]["culvert.dev/moved"],
        Value::Null
    );
    assert_eq!(
        variable(container(&after, "culvert-server"), "CULVERT_AGENT_PORT"),
        None
    );
}
