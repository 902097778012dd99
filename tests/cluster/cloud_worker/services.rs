//! What else may listen on an edge node: a WebSocket server, a gRPC server and an ssh server, each with clients that
//! Debian ships, on the worker's machine.

use std::fs;
use std::path::{Path, PathBuf};

use culvert_tests::cluster::{CLIENTS_ARCHIVE, archive_path};
use culvert_tests::{Daemon, command, until};

use super::{Worker, worker};
use crate::objects::Ports;
use crate::stage::PATIENCE;
use crate::tidying::tidied;

const EDGE: &str = "10.78.0.11";
const WEBSOCKET: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/cluster/cloud_worker/websocket.py"
);

/// A directory on the edge's disk, made anew.
fn home(worker: &Worker, name: &str) -> PathBuf {
    let home = worker.cluster.edge(0).directory().join(name);
    let _ = fs::remove_dir_all(&home);
    fs::create_dir_all(&home).unwrap();
    home
}

#[test]
fn a_websocket_is_whole_by_the_nodes_address_and_as_a_request_by_its_name() {
    let worker = worker();
    let python = worker.cluster.edge(0).launch("/usr/bin/python3");
    let server = python.arg(WEBSOCKET).words("serve").arg(EDGE).arg("9201");
    let mut server = server.start().unwrap();
    server.wait_for_line("listening", PATIENCE).unwrap();
    let _ports = Ports::new(worker.cluster, &[("http-proxy-ports", "9201")]);
    for asked in ["10.78.0.11 9201", "edge-1 9201 10.77.0.1 10264"] {
        let python = worker.machine().launch("/usr/bin/python3");
        let ask = python.arg(WEBSOCKET).words("ask").words(asked);
        until(&format!("{asked} echoes"), PATIENCE, || {
            let said = ask.start()?.succeed(PATIENCE)?;
            assert_eq!(said.trim_end(), "echoed, closed with 1000", "{asked}");
            Ok(Some(()))
        })
        .unwrap();
    }
}

#[test]
fn calls_and_streams_of_grpc_reach_an_edge_node() {
    let worker = worker();
    let url = format!("http://{EDGE}:2379");
    let etcd = worker.cluster.edge(0).launch("etcd");
    let etcd = etcd.arg("--data-dir").arg(home(worker, "etcd"));
    let etcd = etcd.args([
        "--listen-client-urls",
        &url,
        "--advertise-client-urls",
        &url,
    ]);
    let etcd = etcd.args(["--listen-peer-urls", "http://127.0.0.1:2380"]);
    let mut etcd = etcd.start().unwrap();
    etcd.wait_for_line("ready to serve client requests", PATIENCE)
        .unwrap();
    let _ports = Ports::new(worker.cluster, &[("http-proxy-ports", "2379")]);
    let etcdctl = worker.machine().launch("etcdctl").env("ETCDCTL_API", "3");
    let etcdctl = etcdctl.arg(format!("--endpoints={url}"));
    let put = |value: &str| {
        etcdctl
            .clone()
            .args(["put", "key", value])
            .start()?
            .succeed(PATIENCE)
    };
    until("a call is answered", PATIENCE, || put("first").map(Some)).unwrap();
    let mut watch = etcdctl.clone().words("watch key --rev 1").start().unwrap();
    watch.wait_for_line("first", PATIENCE).unwrap();
    for value in ["second", "third"] {
        put(value).unwrap();
        watch.wait_for_line(value, PATIENCE).unwrap();
    }
}

/// An ssh server that one key opens, and that key.
fn sshd(worker: &Worker) -> (Daemon, PathBuf) {
    let home = home(worker, "ssh");
    for name in ["host", "user"] {
        let key = home.join(name).display().to_string();
        command::run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", &key]).unwrap();
    }
    let file = |name: &str| home.join(name);
    let option = |name: &str, path: PathBuf| format!("{name}={}", path.display());
    let server = worker.cluster.edge(0).launch("/usr/sbin/sshd");
    let server =
        server.words("-D -e -f /dev/null -p 9222 -o PermitRootLogin=yes -o StrictModes=no");
    let server = server.args(["-o", "ListenAddress=10.78.0.11", "-o", "PidFile=none", "-o"]);
    let server = server.arg(option("HostKey", file("host"))).arg("-o");
    let server = server.arg(option("AuthorizedKeysFile", file("user.pub")));
    let mut server = server.start().unwrap();
    server.wait_for_line("Server listening", PATIENCE).unwrap();
    let known = fs::read_to_string(file("host.pub")).unwrap();
    fs::write(file("known"), format!("[{EDGE}]:9222 {known}")).unwrap();
    (server, home)
}

/// What a shell of the worker reads of a command on the edge.
fn ssh(home: &Path) -> String {
    let (key, known) = (home.join("user"), home.join("known"));
    format!(
        "ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile={} -i {} -p 9222 root@{EDGE}",
        known.display(),
        key.display()
    )
}

/// The directory that sshd wants, whoever starts it, until this is dropped.
struct PrivilegeSeparation {
    is_own: bool,
}

impl PrivilegeSeparation {
    const DIRECTORY: &str = "/run/sshd";

    fn prepare() -> Self {
        let is_own = fs::create_dir(Self::DIRECTORY).is_ok();
        Self { is_own }
    }
}

impl Drop for PrivilegeSeparation {
    fn drop(&mut self) {
        if self.is_own {
            let removed = fs::remove_dir(Self::DIRECTORY).map_err(Into::into);
            tidied("sshd's directory stays", removed);
        }
    }
}

#[test]
fn a_shell_on_an_edge_node_knows_its_caller_and_carries_files_whole() {
    let worker = worker();
    let _separation = PrivilegeSeparation::prepare();
    let (_server, home) = sshd(worker);
    let _ports = Ports::new(worker.cluster, &[("http-proxy-ports", "9222")]);
    let (ssh, file) = (ssh(&home), archive_path(CLIENTS_ARCHIVE).unwrap());
    let shell = worker.machine().launch("sh").arg("-c");
    let who = shell
        .clone()
        .arg(format!("{ssh} 'echo by $SSH_CONNECTION'"));
    let who = until("a command runs", PATIENCE, || {
        who.start()?.succeed(PATIENCE).map(Some)
    });
    // The agent dials: to the server, the node's own machine is the client.
    assert!(who.unwrap().ends_with(" 10.78.0.11 9222\n"));
    let file = file.display();
    let there_and_back = format!("{ssh} cat <{file} | cmp - {file} && echo whole");
    let copy = shell.arg(there_and_back).start().unwrap().succeed(PATIENCE);
    assert_eq!(copy.unwrap().trim_end(), "whole");
}
