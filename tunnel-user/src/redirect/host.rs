//! What the machine must offer, asked before anything is loaded, so that an error names the cause
//! and the way out.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::statfs,
    system::uname,
    thread::{CapabilitySet, capabilities},
};
use tunnel_ebpf::programs;

use super::InstallError;

/// The oldest maintained kernel that has all of it: socket storage from these programs (5.3), links
/// to cgroups (5.7), getpeername hooks, sockmap lookups and `CAP_BPF` (5.8).
const MINIMUM_KERNEL: KernelVersion = KernelVersion(5, 10);
/// `bpf_set_retval` exists, so a refused connect fails with `ECONNREFUSED`.
const SET_RETVAL: KernelVersion = KernelVersion(5, 18);
/// Programs of TCP events may ask for their network namespace.
const NETNS_COOKIE: KernelVersion = KernelVersion(5, 15);
/// Socket lookups know the interface by which a packet came.
const INGRESS: KernelVersion = KernelVersion(5, 17);

const CGROUP2_MAGIC: u64 = 0x6367_7270;
const BPFFS_MAGIC: u64 = 0xcafe_4a11;
/// The inode of the root of the cgroup2 hierarchy; a cgroup namespace's root has another.
const ROOT_CGROUP_ID: u64 = 1;

/// The machine that the redirect runs on.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) kernel: KernelVersion,
    /// The kernel's own name for its release.
    pub(super) release: String,
    pub(super) cgroup: Cgroup,
    /// The network namespace of this process.
    pub(super) netns: Netns,
}

/// A network namespace.
#[derive(Debug)]
pub(super) struct Netns {
    pub(super) file: File,
    /// What the kernel calls it in a link: its file's inode.
    pub(super) id: u64,
}

/// Where a program is attached.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    Cgroup(&'a Cgroup),
    Netns(&'a Netns),
}

/// What newer kernels have; the programs do without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Features {
    pub(super) set_retval: bool,
    pub(super) netns_cookie: bool,
    pub(super) ingress: bool,
}

/// A kernel version: major, minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KernelVersion(u16, u16);

/// The cgroup whose processes' connects are seen.
#[derive(Debug)]
pub(super) struct Cgroup {
    pub(super) path: PathBuf,
    pub(super) directory: File,
    /// What the kernel calls it in a link: its directory's inode.
    pub(super) id: u64,
}

impl Host {
    /// Checks the kernel, our capabilities, the cgroup and the BPF file system.
    pub(super) fn check(cgroup: Option<&Path>, pin_root: &Path) -> Result<Self, InstallError> {
        let release = uname().release().to_string_lossy().into_owned();
        let kernel = KernelVersion::parse(&release).unwrap_or(KernelVersion(0, 0));
        if kernel < MINIMUM_KERNEL {
            return Err(InstallError::OldKernel { release });
        }
        check_capabilities()?;
        check_bpffs(pin_root)?;
        let cgroup = match cgroup {
            Some(path) => Cgroup::open(path)?,
            None => Cgroup::root()?,
        };
        Ok(Self {
            kernel,
            release,
            cgroup,
            netns: Netns::own().map_err(InstallError::Netns)?,
        })
    }

    /// Where a program belongs.
    pub(super) fn place(&self, program: &str) -> Place<'_> {
        if program == programs::STEER {
            Place::Netns(&self.netns)
        } else {
            Place::Cgroup(&self.cgroup)
        }
    }

    pub(super) fn features(&self) -> Features {
        Features {
            set_retval: self.kernel >= SET_RETVAL,
            netns_cookie: self.kernel >= NETNS_COOKIE,
            ingress: self.kernel >= INGRESS,
        }
    }
}

impl Netns {
    fn own() -> io::Result<Self> {
        let file = File::open("/proc/thread-self/ns/net")?;
        let id = file.metadata()?.ino();
        Ok(Self { file, id })
    }
}

impl Place<'_> {
    /// What the kernel calls it in a link.
    pub(super) fn id(&self) -> u64 {
        match self {
            Self::Cgroup(cgroup) => cgroup.id,
            Self::Netns(netns) => netns.id,
        }
    }
}

impl AsFd for Place<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Cgroup(cgroup) => cgroup.directory.as_fd(),
            Self::Netns(netns) => netns.file.as_fd(),
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroup(cgroup) => cgroup.path.display().fmt(f),
            Self::Netns(_) => f.write_str("this process's network namespace"),
        }
    }
}

impl KernelVersion {
    fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        Some(Self(
            numbers.next()?.parse().ok()?,
            numbers.next()?.parse().ok()?,
        ))
    }
}

impl Cgroup {
    /// The root of the hierarchy, wherever a hybrid host has it mounted. A container sees its own
    /// part of it as well, and the host's where that is mounted into it.
    fn root() -> Result<Self, InstallError> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(InstallError::Mounts)?;
        let mut not_root = InstallError::NoCgroup2;
        for path in mounts.lines().filter_map(cgroup2_mount) {
            match Self::open(&path) {
                Ok(found) if found.id == ROOT_CGROUP_ID => return Ok(found),
                Ok(_) => not_root = InstallError::NotRootCgroup { path },
                // Another mount may hide it.
                Err(error) => not_root = error,
            }
        }
        Err(not_root)
    }

    fn open(path: &Path) -> Result<Self, InstallError> {
        let unusable = |source| InstallError::Cgroup {
            path: path.to_owned(),
            source,
        };
        let directory = File::open(path).map_err(unusable)?;
        if !is_of(path, CGROUP2_MAGIC).map_err(unusable)? {
            return Err(InstallError::NotCgroup2 {
                path: path.to_owned(),
            });
        }
        let id = directory.metadata().map_err(unusable)?.ino();
        Ok(Self {
            path: path.to_owned(),
            directory,
            id,
        })
    }
}

/// The mount point, if the line of `/proc/self/mountinfo` is a cgroup2 mount; `proc_pid_mountinfo(5)`.
fn cgroup2_mount(line: &str) -> Option<PathBuf> {
    let (mount, source) = line.split_once(" - ")?;
    if source.split(' ').next()? != "cgroup2" {
        return None;
    }
    let point = mount.split(' ').nth(4)?;
    // The only characters that a mount point is escaped for.
    let point = point
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\");
    Some(point.into())
}

fn check_capabilities() -> Result<(), InstallError> {
    let effective = effective().map_err(InstallError::Capabilities)?;
    let mut missing = Vec::new();
    if !effective.intersects(CapabilitySet::BPF | CapabilitySet::SYS_ADMIN) {
        missing.push("CAP_BPF");
    }
    if !effective.contains(CapabilitySet::NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(InstallError::MissingCapabilities {
        missing: missing.join(" and "),
    })
}

/// Whether programs that follow variable pointers may be loaded: those with logging do.
pub(super) fn can_load_logging_programs() -> bool {
    let enough = CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN;
    effective().is_ok_and(|effective| effective.intersects(enough))
}

/// This thread's effective capabilities.
fn effective() -> io::Result<CapabilitySet> {
    Ok(capabilities(None)?.effective)
}

/// The nearest directory above the pins that exists must be on a BPF file system.
fn check_bpffs(pin_root: &Path) -> Result<(), InstallError> {
    let existing = pin_root.ancestors().find(|dir| dir.exists());
    match existing.map(|dir| is_of(dir, BPFFS_MAGIC)) {
        Some(Ok(true)) => Ok(()),
        _ => Err(InstallError::NoBpffs {
            path: pin_root.to_owned(),
        }),
    }
}

fn is_of(path: &Path, magic: u64) -> io::Result<bool> {
    let found = statfs(path)?.f_type;
    #[expect(clippy::cast_sign_loss, reason = "a bit pattern")]
    Ok(found as u64 & 0xffff_ffff == magic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_compare_as_numbers() {
        let parse = |release| KernelVersion::parse(release).unwrap();
        assert!(parse("5.9.16-generic") < MINIMUM_KERNEL);
        assert!(parse("5.10.0-28-cloud-amd64") >= MINIMUM_KERNEL);
        assert!(parse("5.18-rc1") >= SET_RETVAL && parse("5.17.3") < SET_RETVAL);
        assert_eq!(parse("6.1.0+"), KernelVersion(6, 1));
        assert_eq!(KernelVersion::parse("linux"), None);
    }

    #[test]
    fn finds_cgroup2_where_a_hybrid_host_has_it() {
        let v1 = "31 25 0:27 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu";
        let v2 = "42 25 0:38 / /sys/fs/my\\040cgroup rw shared:4 - cgroup2 cgroup2 rw";
        assert_eq!(cgroup2_mount(v1), None);
        assert_eq!(cgroup2_mount(v2), Some(PathBuf::from("/sys/fs/my cgroup")));
        assert_eq!(cgroup2_mount("nonsense"), None);
    }
}
