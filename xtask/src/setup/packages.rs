//! The programs that tests and demo run, and the packages they come in.

use std::process::Command;

use super::Step;
use crate::shell;

/// (program, package on Debian, package on Ubuntu where it differs)
const PROGRAMS: [(&str, &str, Option<&str>); 28] = [
    ("apparmor_parser", "apparmor", None),
    ("/usr/lib/cni/bridge", "containernetworking-plugins", None),
    ("bpftool", "bpftool", Some("linux-tools-generic")),
    ("busybox", "busybox-static", None),
    ("capsh", "libcap2-bin", None),
    ("conntrack", "conntrack", None),
    ("containerd", "containerd", None),
    ("cpio", "cpio", None),
    ("curl", "curl", None),
    ("dash", "dash", None),
    ("depmod", "kmod", None),
    ("etcd", "etcd-server", None),
    ("ip", "iproute2", None),
    ("iptables", "iptables", None),
    ("ldd", "libc-bin", None),
    ("nft", "nftables", None),
    ("nsenter", "util-linux", None),
    ("openssl", "openssl", None),
    ("prometheus", "prometheus", None),
    ("ps", "procps", None),
    ("qemu-system-x86_64", "qemu-system-x86", None),
    ("runc", "runc", None),
    ("socat", "socat", None),
    ("strip", "binutils", None),
    ("systemd-analyze", "systemd", None),
    ("xz", "xz-utils", None),
    ("cc", "gcc libc6-dev", None),
    ("make", "make", None),
];

pub(super) fn missing() -> Option<Step> {
    let absent: Vec<_> = PROGRAMS
        .iter()
        .filter(|(program, _, _)| shell::find(program).is_none())
        .collect();
    if absent.is_empty() {
        return None;
    }
    let programs: Vec<_> = absent.iter().map(|(program, _, _)| *program).collect();
    let packages = absent.iter().map(|(_, debian, ubuntu)| match ubuntu {
        Some(ubuntu) if !available(debian) => *ubuntu,
        _ => *debian,
    });
    Some(Step {
        why: format!("programs that are missing: {}", programs.join(", ")),
        commands: install(packages.flat_map(str::split_whitespace)),
        needs_root: true,
    })
}

/// True when apt knows a version of the package that could be installed.
pub(super) fn available(package: &str) -> bool {
    let policy = shell::output(Command::new("apt-cache").args(["policy", package]));
    policy.is_ok_and(|said| said.contains("Candidate:") && !said.contains("Candidate: (none)"))
}

/// The commands that install packages: the index first, for it may be old or not there at all.
pub(super) fn install<'a>(packages: impl IntoIterator<Item = &'a str>) -> Vec<Command> {
    let mut update = Command::new("apt-get");
    update.args(["-q", "-o", RETRIES, "update"]);
    let mut install = Command::new("sh");
    install
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-c", WITHOUT_SERVICES, "sh"])
        .args(["apt-get", "-q", "-o", RETRIES, "install", "-y"])
        .arg("--no-install-recommends")
        .args(packages);
    vec![update, install]
}

const RETRIES: &str = "Acquire::Retries=3";

/// Runs a command while no package may start its service: we start containerd, etcd and Prometheus ourselves, in
/// namespaces. A policy that is there already is the administrator's, and stays.
const WITHOUT_SERVICES: &str = r#"policy=/usr/sbin/policy-rc.d
[ ! -e $policy ] || exec "$@"
trap 'rm -f $policy' EXIT
printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy && "$@""#;
