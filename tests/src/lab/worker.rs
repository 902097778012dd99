//! A machine of the cloud beside the control plane, behind the same router as the edges but on this side of the NAT:
//! it and the control plane may reach each other, the edge is out of its reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::router::Router;
use super::{CONTROL, join};
use crate::NetNs;

/// The worker's addresses.
pub(crate) const WORKER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 77, 1, 2)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x77, 1, 0, 0, 0, 0, 2)),
];
/// The router's at the other end of its cable.
pub(crate) const WORKERS_ROUTER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(10, 77, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x77, 1, 0, 0, 0, 0, 1)),
];

/// Inside the cloud connections may begin at either end, and addresses stay what they are.
const RULES: &str = r#"
insert rule inet culvert_nat outward iifname "worker" return
add rule inet culvert_nat inward iifname "worker" oifname "north" accept
add rule inet culvert_nat inward iifname "north" oifname "worker" accept
"#;

#[derive(Debug)]
pub(super) struct Worker {
    namespace: NetNs,
}

impl Worker {
    /// The control plane still needs its own route to it.
    pub(super) fn new(router: &Router) -> Result<Self> {
        let namespace = NetNs::new("worker")?;
        let there = "worker";
        join(&namespace, "eth0", router.namespace(), there)?;
        let lengths = ["24", "64"].into_iter();
        for (((length, own), way), control) in lengths.zip(WORKER).zip(WORKERS_ROUTER).zip(CONTROL)
        {
            let no_dad = super::no_dad(own);
            router
                .namespace()
                .ip(&format!("addr add {way}/{length} dev {there}{no_dad}"))?;
            namespace.ip(&format!("addr add {own}/{length} dev eth0{no_dad}"))?;
            namespace.ip(&format!("route add {control} via {way}"))?;
        }
        router.namespace().nft(RULES)?;
        Ok(Self { namespace })
    }

    pub(super) fn of_another(name: &str) -> Result<Self> {
        let namespace = NetNs::of_another(name)?;
        Ok(Self { namespace })
    }

    pub(super) fn namespace(&self) -> &NetNs {
        &self.namespace
    }

    pub(super) fn namespace_mut(&mut self) -> &mut NetNs {
        &mut self.namespace
    }
}
