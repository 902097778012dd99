//! The server as a container runs it that AppArmor confines.

use std::fs;
use std::path::Path;
use std::time::Duration;

use culvert_tests::{Daemon, Lab, Launch, Site, programs};

const PATIENCE: Duration = Duration::from_mins(1);
const PROFILE: &str = "cri-containerd.apparmor.d";
/// What containerd makes of its template for containers without a profile of their own, but for what its includes allow
/// besides `file`: [template.go](https://github.com/containerd/containerd/blob/v1.7.24/contrib/apparmor/template.go).
const RULES: &str = include_str!("cri-containerd.apparmor.d");

/// A site whose pins are also found where a pod has them: away from `/sys`.
fn site() -> (Site, tempfile::TempDir) {
    let site = Site::new(Lab::nat().unwrap()).unwrap();
    let mounted = tempfile::tempdir().unwrap();
    let mount = Launch::offline("mount").words("-o bind");
    run(&mount.arg(site.pins()).arg(mounted.path()));
    (site, mounted)
}

fn load_profile(site: &Site) {
    assert_eq!(
        fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap(),
        "Y\n",
        "this kernel has no AppArmor"
    );
    let file = site.directory().join(PROFILE);
    fs::write(&file, RULES).unwrap();
    let parser = Launch::offline("apparmor_parser").words("--replace --skip-cache");
    run(&parser.arg(file));
}

fn run(tool: &Launch) {
    tool.start().unwrap().succeed(PATIENCE).unwrap();
}

/// A server that is under the profile from its first instruction.
fn confined_server(site: &Site, pin_root: &Path) -> Daemon {
    let culvert = site.client(site.lab().control(), programs::culvert().unwrap());
    let server = culvert
        .words("server --redirect-address 10.77.0.1 --state-dir")
        .arg(site.server_state())
        .arg("--run-dir")
        .arg(site.server_run())
        .arg("--cgroup")
        .arg(site.captured().path())
        .arg("--pin-root")
        .arg(pin_root);
    let become_it = format!(
        "echo 'exec {PROFILE}' >/proc/self/attr/apparmor/exec && exec {}",
        server.to_shell()
    );
    let shell = server.with_program("sh").arg("-c").arg(become_it);
    shell.start().unwrap()
}

#[test]
fn the_default_profile_of_containers_allows_what_the_manifests_ask_for() {
    let (site, mounted) = site();
    load_profile(&site);
    let mut server = confined_server(&site, mounted.path());
    server.wait_for_line("redirecting", PATIENCE).unwrap();
    let label = format!("/proc/{}/attr/apparmor/current", server.pid());
    let label = fs::read_to_string(label).unwrap();
    assert_eq!(label, format!("{PROFILE} (enforce)\n"));
    assert!(server.stop(PATIENCE).unwrap().success());
    run(&Launch::offline("umount").arg(mounted.path()));
}

#[test]
fn what_it_forbids_is_told_with_its_name_and_the_way_out() {
    let (site, mounted) = site();
    load_profile(&site);
    let below_sys = site.pins().join("deeper");
    let mut server = confined_server(&site, &below_sys);
    assert!(!server.wait(PATIENCE).unwrap().success());
    let said = server.output();
    for part in [PROFILE, "appArmorProfile", below_sys.to_str().unwrap()] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    run(&Launch::offline("umount").arg(mounted.path()));
}
