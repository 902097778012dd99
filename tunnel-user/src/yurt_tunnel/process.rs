//! A server of Yurt-Tunnel's that runs: it would put its rules back within a minute.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

const PROGRAM: &str = "yurt-tunnel-server";

/// Its process id, where one is to be seen in this network namespace. Culvert under that name is none, nor is what
/// another user than root has called so: without root's rights it keeps no rules.
pub fn running_server() -> Option<u32> {
    let own = fs::read_link("/proc/self/ns/net").ok()?;
    let processes = fs::read_dir("/proc").ok()?;
    let ids = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut servers = ids.filter(|id: &u32| {
        let process = Path::new("/proc").join(id.to_string());
        let is_roots = fs::metadata(&process).is_ok_and(|process| process.uid() == 0);
        let program = fs::read_link(process.join("exe"));
        let is_it =
            program.is_ok_and(|program| program.file_name().is_some_and(|name| name == PROGRAM));
        is_roots
            && is_it
            && fs::read_link(process.join("ns/net")).is_ok_and(|namespace| namespace == own)
    });
    servers.next()
}
