//! Clients of edge nodes that are at it all the time: a Prometheus, an open `exec`, and who dials anew each time.

use std::mem;

use culvert_tests::Daemon;
use culvert_tests::cluster::Cluster;

use crate::observers::Scraper;
use crate::stage::PATIENCE;

/// Nobody counts so far.
pub(super) const TICKS: &str = "i=0; while sleep 0.2; do i=$((i+1)); echo tick $i; done";

pub(super) struct Clients<'a> {
    cluster: &'a Cluster,
    pub(super) exec: Exec,
    pub(super) dials: Dials,
    pub(super) scraper: Scraper<'a>,
}

impl<'a> Clients<'a> {
    pub(super) fn begin(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            exec: Exec::begin(cluster),
            dials: Dials::begin(cluster),
            scraper: Scraper::begin(cluster),
        }
    }

    /// Opens another `exec` and returns the one before, which goes on.
    pub(super) fn exec_anew(&mut self) -> Exec {
        mem::replace(&mut self.exec, Exec::begin(self.cluster))
    }

    /// Who dials forgets what has failed.
    pub(super) fn dials_anew(&mut self) {
        self.dials = Dials::begin(self.cluster);
    }
}

/// An `exec` in the pod of edge-1 that says something all the time.
pub(super) struct Exec(Daemon);

impl Exec {
    fn begin(cluster: &Cluster) -> Self {
        let kubectl = cluster.kubectl_launch().unwrap();
        let exec = kubectl.words("exec on-1 -- sh -c").arg(TICKS);
        let mut exec = Self(exec.start().unwrap());
        exec.goes_on();
        exec
    }

    pub(super) fn goes_on(&mut self) {
        self.0.forget_output();
        self.0.wait_for_line("tick", PATIENCE).unwrap();
    }

    /// It was carried by what is gone.
    pub(super) fn ends(mut self) {
        self.0.wait(PATIENCE).unwrap();
    }
}

/// Dials both kubelets anew, ten times a second, and says how that went.
pub(super) struct Dials(Daemon);

impl Dials {
    fn begin(cluster: &Cluster) -> Self {
        let ask = "curl -sf -m 20 -o /dev/null http://10.78.0.1$node:10255/healthz";
        let line = format!(
            "while :; do for node in 1 2; do {ask} || echo FAILED $node; done; echo round; sleep 0.1; done"
        );
        let sh = cluster.control_plane().launch("sh").arg("-c").arg(line);
        let mut dials = sh.start().unwrap();
        dials.wait_for_line("round", PATIENCE).unwrap();
        Self(dials)
    }

    pub(super) fn none_has_failed(&mut self) {
        let said = self.0.output();
        assert!(said.contains("round"), "{said}");
        assert!(!said.contains("FAILED"), "{said}");
    }
}
