//! The recipe of the manual for removing Culvert, run as it stands there. It ends the shared installation: the name of
//! this file sorts last of those that use it.

use culvert_tests::cluster::Machine;
use culvert_tests::{command, until};

use crate::dials::{get, is_not_captured};
use crate::manual;
use crate::stage::{PATIENCE, culvert};

const REMOVE: &str = "deploy/kubernetes/remove";

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

    let recipe = manual::block("docs/kubernetes.md", "Remove", 0);
    let overlay = cluster.remove_overlay(control).unwrap();
    let said = manual::run(cluster, &manual::with_overlay(&recipe, REMOVE, &overlay));
    assert!(said.contains("removed 8 programs and "), "{said}");
    assert!(!pins.exists(), "{} stays", pins.display());
    assert_eq!(attached(control), "");
    assert!(is_not_captured(cluster, "10.78.0.11:10255"));
}

/// The programs on the cgroup of everything that runs on a machine.
pub(crate) fn attached(machine: &Machine) -> String {
    let cgroup = machine.cgroup().to_str().unwrap();
    let listed = command::run("bpftool", ["cgroup", "show", cgroup]).unwrap();
    listed.trim().to_owned()
}
