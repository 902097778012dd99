//! A cluster of its own for one tunnel, and what all rows use on it.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use culvert_tests::cluster::{Directory, OwnCluster, wait_until};
use culvert_tests::programs;

use crate::tunnel::Tunnel;

/// The pod on the first edge that rows talk to.
pub(crate) const SUBJECT: &str = "subject";
/// It has said lines 1 to 20000, serves a file on 8080, and says a tick ten times a second.
const SUBJECT_LINE: &str = "seq 20000; mkdir /www; seq 100000 >/www/numbers; httpd -p 8080 -h /www; \
                            i=0; while sleep 0.1; do i=$((i+1)); echo tick $i; done";
/// Where the subject runs.
pub(crate) const NODE: &str = "edge-1";

pub(crate) struct Stage {
    pub(crate) cluster: OwnCluster,
    pub(crate) tunnel: &'static Tunnel,
    /// What a person had to do.
    pub(crate) steps: Vec<String>,
}

impl Stage {
    /// Makes the cluster and installs the tunnel.
    pub(crate) fn set(tunnel: &'static Tunnel) -> Result<Self> {
        let directory = Directory::new(programs::target_directory()?.join("cluster-compare"))?;
        let mut stage = Self {
            cluster: OwnCluster::bring_up(&directory)?,
            tunnel,
            steps: Vec::new(),
        };
        stage.steps = (tunnel.install)(&stage.cluster).context("install it")?;
        stage.cluster.run_pod(SUBJECT, NODE, SUBJECT_LINE, false)?;
        Ok(stage)
    }

    /// The address that clients dial.
    pub(crate) fn node_address(&self) -> IpAddr {
        self.cluster.edge(0).addresses()[0]
    }

    /// Waits until the tunnel works, and returns how much its administrator had to do for that; a row begins with what
    /// the one before has broken.
    pub(crate) fn settle(&self) -> Result<usize> {
        let patience = Duration::from_mins(3);
        let mut done = 0;
        wait_until("logs can be had again", patience, || {
            done += (self.tunnel.tend)(&self.cluster)?;
            self.last_line().map(Some)
        })?;
        Ok(done)
    }

    /// The last line of the subject's logs, which takes no longer than five seconds.
    pub(crate) fn last_line(&self) -> Result<String> {
        let words = ["logs", "--tail=1", "--request-timeout=5s", SUBJECT];
        self.cluster.kubectl(words)
    }
}
