//! A control plane whose cgroup the redirect is attached to, and the smallest server behind it.

use std::{io::Write as _, path::PathBuf, time::Duration};

use culvert_tests::{
    Cgroup, Daemon, Lab, Launch, NetNs, PinRoot, command, programs,
    report::{Accepted, Connects, parse},
};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Where the server listens.
pub(super) const SERVER_V4: &str = "10.77.0.1:20250";
pub(super) const SERVER_V6: &str = "[fd00:77::1]:20250";
/// What a server on both addresses is told that captures the edge node's.
pub(super) const EDGE: &str = "--listen 10.77.0.1:20250 --listen [fd00:77::1]:20250 \
                               --node 10.78.0.11 --node fd00:78::11";
/// An edge node, to which there is no route.
pub(super) const NODE_V4: &str = "10.78.0.11:10250";
pub(super) const NODE_V6: &str = "[fd00:78::11]:10250";

/// The order of the fields is the order of their end: programs, pins, cgroup, network.
pub(super) struct RedirectLab {
    pub(super) pins: PinRoot,
    pub(super) cgroup: Cgroup,
    pub(super) lab: Lab,
}

impl RedirectLab {
    pub(super) fn new() -> Self {
        Self::with_cgroup(Cgroup::new("redirect").unwrap())
    }

    pub(super) fn with_cgroup(cgroup: Cgroup) -> Self {
        Self {
            lab: Lab::alone().unwrap(),
            cgroup,
            pins: PinRoot::new().unwrap(),
        }
    }

    /// A control plane with another machine on its network, which sends packets for the range its way.
    pub(super) fn with_stranger() -> Self {
        let lab = Lab::nat().unwrap();
        let route = "route add 198.18.0.0/15 via 10.77.0.1";
        lab.router().ip(route).unwrap();
        Self {
            lab,
            cgroup: Cgroup::new("redirect").unwrap(),
            pins: PinRoot::new().unwrap(),
        }
    }

    pub(super) fn control(&self) -> &NetNs {
        self.lab.control()
    }

    /// A server on both addresses, ready to accept, which captures the edge node's.
    pub(super) fn server(&self, line: &str) -> Daemon {
        self.bare_server(&format!("{EDGE} {line}"))
    }

    pub(super) fn bare_server(&self, line: &str) -> Daemon {
        let mut server = self.acceptor(line).start().unwrap();
        server.wait_for_line("redirecting", PATIENCE).unwrap();
        server
    }

    pub(super) fn acceptor(&self, line: &str) -> Launch {
        self.with_acceptor(Launch::new(self.control(), programs::acceptor().unwrap()))
            .words(line)
    }

    /// A server that has these capabilities only, such as `+bpf,+net_admin`.
    pub(super) fn confined_acceptor(&self, capabilities: &str, line: &str) -> Launch {
        // The one of util-linux: busybox's, in the test machine, cannot do this.
        let setpriv = Launch::new(self.control(), "/usr/bin/setpriv")
            .arg(format!("--bounding-set=-all,{capabilities}"))
            .arg(programs::acceptor().unwrap());
        self.with_acceptor(setpriv).words(line)
    }

    /// The server belongs into the cgroup as well: its accepted sockets are handed what the clients' knew.
    fn with_acceptor(&self, launch: Launch) -> Launch {
        launch
            .cgroup(&self.cgroup)
            .arg("--cgroup")
            .arg(self.cgroup.path())
            .arg("--pins")
            .arg(self.pins.path())
    }

    /// Loads our object a second time, without our loader; returns where its programs are pinned.
    pub(super) fn load_with_bpftool(&self, name: &str) -> PathBuf {
        let mut object = tempfile::NamedTempFile::new().unwrap();
        object.write_all(tunnel_user::redirect::object()).unwrap();
        let into = self.pins.path().join(name);
        let (object, pins) = (object.path().to_str().unwrap(), into.to_str().unwrap());
        command::run("bpftool", ["prog", "loadall", object, pins]).unwrap();
        into
    }

    /// A client in the cgroup.
    pub(super) fn probe(&self, namespace: &NetNs, line: &str) -> Launch {
        Launch::new(namespace, programs::probe().unwrap())
            .cgroup(&self.cgroup)
            .words(line)
    }

    /// A client that no program sees.
    pub(super) fn outside(namespace: &NetNs, line: &str) -> Launch {
        Launch::new(namespace, programs::probe().unwrap()).words(line)
    }

    /// Connects in the cgroup from the control plane's network.
    pub(super) fn connects(&self, line: &str) -> Connects {
        let mut client = self
            .probe(self.control(), &format!("connect --greeting {line}"))
            .start()
            .unwrap();
        parse(&client.succeed(PATIENCE).unwrap()).unwrap()
    }

    /// One connect that must reach the server: what getpeername showed and what the server said.
    pub(super) fn reaches(&self, line: &str) -> (String, String) {
        let report = self.connects(line);
        assert_eq!(report.failures(), 0, "{line}: {report:?}");
        let peer = report.peers.first().expect("a peer").to_string();
        let greeting = report.greetings.first().expect("a greeting").clone();
        (peer, greeting)
    }

    /// One connect that must fail: how.
    pub(super) fn fails(&self, line: &str) -> String {
        let report = self.connects(line);
        assert_eq!(report.succeeded, 0, "{line}: {report:?}");
        report.failed.keys().next().expect("a cause").clone()
    }
}

/// Ends a server in order, and returns its report.
pub(super) fn stop(server: &mut Daemon) -> Accepted {
    let status = server.stop(PATIENCE).unwrap();
    assert!(status.success(), "{}", server.output());
    let output = server.output();
    let report = output.lines().find(|line| line.starts_with('{'));
    parse(report.unwrap_or_default()).unwrap()
}
