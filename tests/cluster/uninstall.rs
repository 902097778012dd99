//! The recipe of the manual for removing Culvert, run as it stands there. It ends the shared installation: the name of
//! this file sorts last of those that use it.

use std::fs;
use std::time::Duration;

use culvert_tests::cluster::{Cluster, Machine, repository};
use culvert_tests::{command, until};

use crate::dials::{get, is_not_captured};
use crate::stage::{PATIENCE, culvert};

const MANUAL: &str = "docs/kubernetes.md";
const REMOVE: &str = "deploy/kubernetes/remove";
/// A server ends what it carries, and a job is run.
const LONG: Duration = Duration::from_mins(5);

#[test]
fn after_the_recipe_for_removing_nothing_is_left_in_the_kernel() {
    let cluster = culvert();
    let control = cluster.control_plane();
    let pins = control.pin_root().unwrap();
    until("connects are captured", PATIENCE, || {
        get(cluster, "http://10.78.0.11:10255/healthz").map(Some)
    })
    .unwrap();
    assert!(pins.exists());
    assert_ne!(attached(control), "");

    let sh = cluster.kubectl_launch().unwrap().with_program("sh");
    let recipe = sh.arg("-c").arg(recipe(cluster));
    let said = recipe.start().unwrap().succeed(LONG).unwrap();
    assert!(said.contains("removed 8 programs and "), "{said}");
    assert!(!pins.exists(), "{} stays", pins.display());
    assert_eq!(attached(control), "");
    assert!(is_not_captured(cluster, "10.78.0.11:10255"));
}

/// The lines of the manual for a shell that knows which kubectl is meant, and which job where machines share a kernel.
fn recipe(cluster: &Cluster) -> String {
    let manual = fs::read_to_string(repository().join(MANUAL)).unwrap();
    let section = manual
        .split("\n## ")
        .find(|text| text.starts_with("Remove"));
    let lines = section.unwrap().split("```").nth(1).unwrap();
    assert!(lines.contains(REMOVE), "{lines}");
    let overlay = cluster.remove_overlay(cluster.control_plane()).unwrap();
    let lines = lines.replace(REMOVE, overlay.to_str().unwrap());
    let kubectl = cluster.kubectl_launch().unwrap().to_shell();
    format!(
        "set -eu\nkubectl() {{ {kubectl} \"$@\"; }}\ncd {}\n{lines}",
        repository().display()
    )
}

/// The programs on the cgroup of everything that runs on a machine.
pub(crate) fn attached(machine: &Machine) -> String {
    let cgroup = machine.cgroup().to_str().unwrap();
    let listed = command::run("bpftool", ["cgroup", "show", cgroup]).unwrap();
    listed.trim().to_owned()
}
