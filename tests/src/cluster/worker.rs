//! The cloud worker: a node of the cloud that is no control plane, with a machine of its own.
//!
//! Its network, its kubeconfig and its place on disk are made with the cluster, so that whoever removes the cluster
//! removes it as well. Nothing runs on it, and nothing leads to it, until somebody brings it in.

use anyhow::Result;

use super::machine::pod_range;
use super::{Cluster, container_runtime, start, teardown};
use crate::NetNs;
use crate::lab::{CONTROL, ROUTER, WORKER, WORKERS_ROUTER};

impl Cluster {
    /// Brings the worker in: a Ready node, whose pods and those of the control plane reach each other.
    pub fn start_worker(&self) -> Result<()> {
        for (from, route) in self.routes() {
            from.ip(&format!("route replace {route}"))?;
        }
        let worker = self.worker();
        self.start(&container_runtime::program(worker)?)?;
        start::import_images(worker)?;
        self.start_node(worker)?;
        self.wait_for_nodes(&[worker])
    }

    /// Takes it away: its node and pods out of the cluster, then everything that runs on it. It can be brought in
    /// again.
    pub fn stop_worker(&self) -> Result<()> {
        let name = self.worker().name();
        let of_node = format!("--field-selector=spec.nodeName={name}");
        let pods = ["delete", "pods", "--all-namespaces", &of_node];
        self.kubectl(["delete", "node", name])?;
        self.kubectl(pods.into_iter().chain(["--force", "--grace-period=0"]))?;
        teardown::switch_off(self.directory(), self.worker())?;
        self.reap();
        for (from, route) in self.routes() {
            from.ip(&format!("route del {route}"))?;
        }
        Ok(())
    }

    /// What a cloud's network knows of its machines and their pods.
    fn routes(&self) -> [(&NetNs, String); 6] {
        let lab = self.lab();
        let to = |range: &str, way| format!("{range} via {way}");
        let (near, far) = (pod_range(self.control_plane()), pod_range(self.worker()));
        [
            (lab.control(), to(&format!("{}", WORKER[0]), ROUTER[0])),
            (lab.control(), to(&format!("{}", WORKER[1]), ROUTER[1])),
            (lab.control(), to(&far, ROUTER[0])),
            (lab.worker(), to(&near, WORKERS_ROUTER[0])),
            (lab.router(), to(&near, CONTROL[0])),
            (lab.router(), to(&far, WORKER[0])),
        ]
    }
}
