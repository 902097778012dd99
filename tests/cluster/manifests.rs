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
