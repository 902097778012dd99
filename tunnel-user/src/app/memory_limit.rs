//! How much memory this process may use: as it was told, or as the kernel holds it to.
//!
//! A process in a container sees the machine's memory but dies of its cgroup's limit. Every cgroup
//! above it counts as well; the tightest is the one that ends it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    settings::{ByteSize, SessionArgs},
    tunnel::Memory,
};

/// Without any limit the process takes so much of the machine's memory: others live there too.
const SHARE_OF_MACHINE: u64 = 4;
/// Where neither limit nor machine can be read, what an edge node has to spare.
const UNKNOWN: u64 = 256 << 20;
/// cgroup v1 writes "no limit" as the largest number of whole pages; no machine has as much.
const NO_LIMIT: u64 = 1 << 60;

/// Where a limit comes from.
#[derive(Debug, PartialEq, Eq)]
enum Origin {
    Given,
    Cgroup(PathBuf),
    Machine,
    Unknown,
}

/// The memory for connections, of which the log tells how much it is and why.
pub(super) fn memory(args: &SessionArgs) -> Memory {
    let (limit, origin) = find(args.memory_limit, Path::new("/"));
    let memory = Memory::new(limit, args.settings().first_window());
    tracing::info!(
        limit = %ByteSize::new(limit), ?origin, for_connections = %ByteSize::new(memory.limit()),
        connections = memory.most_connections(), "memory",
    );
    memory
}

fn find(given: Option<ByteSize>, root: &Path) -> (u64, Origin) {
    if let Some(given) = given {
        return (given.bytes(), Origin::Given);
    }
    let of_cgroup = cgroup_limit(root).unwrap_or_else(|error| {
        tracing::debug!(%error, "cannot read this process's cgroups");
        None
    });
    if let Some((limit, file)) = of_cgroup {
        return (limit, Origin::Cgroup(file));
    }
    match machine_memory(root) {
        Some(memory) => (memory / SHARE_OF_MACHINE, Origin::Machine),
        None => (UNKNOWN, Origin::Unknown),
    }
}

/// The tightest limit of the cgroups that this process is in, and the file that says so.
fn cgroup_limit(root: &Path) -> io::Result<Option<(u64, PathBuf)>> {
    let cgroups = fs::read_to_string(root.join("proc/self/cgroup"))?;
    let files = cgroups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (mounts, file): (&[&str], _) = match controllers {
            "" => (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], "memory.max"),
            v1 if v1.split(',').any(|name| name == "memory") => {
                (&["sys/fs/cgroup/memory"], "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let path = Path::new(path.trim_start_matches('/'));
        Some(mounts.iter().flat_map(move |mount| {
            let mount = root.join(mount);
            // In a container the path may be the host's; then only the mount's root is there.
            path.ancestors()
                .map(move |ancestor| mount.join(ancestor).join(file))
        }))
    });
    let limits = files.flatten().filter_map(|file| {
        let limit: u64 = fs::read_to_string(&file).ok()?.trim().parse().ok()?;
        Some((limit, file)).filter(|(limit, _)| *limit < NO_LIMIT)
    });
    Ok(limits.min_by_key(|(limit, _)| *limit))
}

fn machine_memory(root: &Path) -> Option<u64> {
    let memory = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = total.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A machine with 8 GiB on which these files are.
    fn machine(files: &[(&str, &str)]) -> TempDir {
        let root = TempDir::new().unwrap();
        let memory = (
            "proc/meminfo",
            "MemTotal:        8388608 kB\nMemFree: 1 kB\n",
        );
        for (file, text) in files.iter().chain([&memory]) {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        root
    }

    fn limit(files: &[(&str, &str)]) -> u64 {
        find(None, machine(files).path()).0 / MIB
    }

    #[test]
    fn the_tightest_of_the_cgroups_above_counts() {
        let cgroup = ("proc/self/cgroup", "0::/kube.slice/pod.slice/one.scope\n");
        let own = "sys/fs/cgroup/kube.slice/pod.slice/one.scope/memory.max";
        let pods = "sys/fs/cgroup/kube.slice/pod.slice/memory.max";
        assert_eq!(limit(&[cgroup, (own, "max\n"), (pods, "536870912\n")]), 512);
        assert_eq!(
            limit(&[cgroup, (own, "268435456\n"), (pods, "536870912\n")]),
            256
        );
    }

    #[test]
    fn a_container_sees_its_own_cgroup_as_the_root() {
        let own = ("sys/fs/cgroup/memory.max", "2147483648\n");
        for path in ["0::/\n", "0::/kubepods/pod1/abc\n"] {
            assert_eq!(limit(&[("proc/self/cgroup", path), own]), 2048);
        }
    }

    #[test]
    fn the_older_hierarchy_counts_and_its_largest_number_is_no_limit() {
        let cgroup = (
            "proc/self/cgroup",
            "5:cpu,cpuacct:/a\n4:memory:/a/b\n0::/system.slice/a.service\n",
        );
        let none = "9223372036854771712\n";
        let inner = "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes";
        let outer = "sys/fs/cgroup/memory/a/memory.limit_in_bytes";
        assert_eq!(limit(&[cgroup, (inner, none), (outer, "104857600\n")]), 100);
        assert_eq!(limit(&[cgroup, (inner, none), (outer, none)]), 2048);
    }

    #[test]
    fn without_a_limit_it_is_a_share_of_the_machine_and_what_was_given_wins() {
        assert_eq!(limit(&[("proc/self/cgroup", "0::/\n")]), 2048);
        assert_eq!(limit(&[]), 2048);
        let given = find(Some(ByteSize::new(5)), machine(&[]).path());
        assert_eq!(given, (5, Origin::Given));
        let nowhere = TempDir::new().unwrap();
        assert_eq!(find(None, nowhere.path()), (UNKNOWN, Origin::Unknown));
    }
}
