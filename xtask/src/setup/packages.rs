//! The programs that tests and demo run, and the packages they come in.

use std::process::Command;

use super::{Purpose, Step};
use crate::shell;

/// (what needs it first, program, package on Debian, package on Ubuntu where it differs)
const PROGRAMS: [(Purpose, &str, &str, Option<&str>); 31] = [
    (Purpose::Build, "cc", "gcc libc6-dev", None),
    (Purpose::Build, "make", "make", None),
    (Purpose::Build, "strip", "binutils", None),
    (Purpose::Demo, "curl", "curl", None),
    (Purpose::Demo, "ip", "iproute2", None),
    (Purpose::Demo, "nsenter", "util-linux", None),
    (Purpose::Demo, "openssl", "openssl", None),
    (Purpose::Test, "apparmor_parser", "apparmor", None),
    (
        Purpose::Test,
        "/usr/lib/cni/bridge",
        "containernetworking-plugins",
        None,
    ),
    (
        Purpose::Test,
        "/usr/lib/python3/dist-packages/websockets/__init__.py",
        "python3-websockets",
        None,
    ),
    (
        Purpose::Test,
        "bpftool",
        "bpftool",
        Some("linux-tools-generic"),
    ),
    (Purpose::Test, "busybox", "busybox-static", None),
    (Purpose::Test, "capsh", "libcap2-bin", None),
    (Purpose::Test, "conntrack", "conntrack", None),
    (Purpose::Test, "containerd", "containerd", None),
    (Purpose::Test, "cpio", "cpio", None),
    (Purpose::Test, "dash", "dash", None),
    (Purpose::Test, "depmod", "kmod", None),
    (Purpose::Test, "etcd", "etcd-server", None),
    (Purpose::Test, "etcdctl", "etcd-client", None),
    (Purpose::Test, "iptables", "iptables", None),
    (Purpose::Test, "ldd", "libc-bin", None),
    (Purpose::Test, "nft", "nftables", None),
    (Purpose::Test, "prometheus", "prometheus", None),
    (Purpose::Test, "ps", "procps", None),
    (Purpose::Test, "qemu-system-x86_64", "qemu-system-x86", None),
    (Purpose::Test, "runc", "runc", None),
    (Purpose::Test, "socat", "socat", None),
    (Purpose::Test, "sshd", "openssh-server", None),
    (Purpose::Test, "systemd-analyze", "systemd", None),
    (Purpose::Test, "xz", "xz-utils", None),
];

pub(super) fn missing(purpose: Purpose) -> Option<Step> {
    let absent: Vec<_> = PROGRAMS
        .iter()
        .filter(|(first, program, _, _)| *first <= purpose && shell::find(program).is_none())
        .map(|(_, program, debian, ubuntu)| (program, debian, ubuntu))
        .collect();
    if absent.is_empty() {
        return None;
    }
    let programs: Vec<_> = absent.iter().map(|(program, _, _)| **program).collect();
    let packages = absent.iter().map(|(_, debian, ubuntu)| match ubuntu {
        Some(ubuntu) if !available(debian) => *ubuntu,
        _ => **debian,
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
