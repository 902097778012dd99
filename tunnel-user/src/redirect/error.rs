//! Why the redirect cannot be installed, filled or opened.

use std::{error::Error, io, path::PathBuf};

use super::{claim::Holders, confinement::Confinement};

/// Why the redirect could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The kernel lacks what the programs use.
    #[error("kernel {release} is too old for the redirect: it needs 5.10 or newer")]
    OldKernel {
        /// The kernel's release.
        release: String,
    },
    /// The process may not load the programs.
    #[error(
        "the redirect needs {missing}: run as root, or grant it \
         (systemd: AmbientCapabilities=, Kubernetes: securityContext.capabilities.add)"
    )]
    MissingCapabilities {
        /// The capabilities that are not effective.
        missing: String,
    },
    /// The process's capabilities cannot be read.
    #[error("cannot read the capabilities of this process")]
    Capabilities(#[source] io::Error),
    /// Logging was asked for.
    #[error(
        "eBPF logging needs CAP_PERFMON besides CAP_BPF and CAP_NET_ADMIN: grant it, or leave \
         the eBPF log level unset"
    )]
    LoggingNeedsPerfmon,
    /// The mounts cannot be read.
    #[error("cannot read /proc/self/mountinfo to find the cgroup2 mount")]
    Mounts(#[source] io::Error),
    /// No cgroup2.
    #[error(
        "no cgroup2 is mounted, which the redirect attaches to; beside cgroup v1 it can be mounted \
         anywhere: mount -t cgroup2 none /run/culvert/cgroup2"
    )]
    NoCgroup2,
    /// A container's own view of the hierarchy.
    #[error(
        "{path} is the root of a cgroup namespace, not of the host: attached there, the redirect \
         would miss every process outside this container; mount the host's /sys/fs/cgroup into the \
         container, anywhere"
    )]
    NotRootCgroup {
        /// Where cgroup2 is mounted.
        path: PathBuf,
    },
    /// The named directory is something else.
    #[error("{path} is not a cgroup2 directory")]
    NotCgroup2 {
        /// The directory.
        path: PathBuf,
    },
    /// The cgroup cannot be opened.
    #[error("cannot use the cgroup {path}")]
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The network namespace cannot be opened.
    #[error("cannot open /proc/thread-self/ns/net, the network namespace of this process")]
    Netns(#[source] io::Error),
    /// Nowhere to pin.
    #[error(
        "{path} is not on a BPF file system, where the redirect's maps and links are pinned: \
         mount -t bpf -o mode=700 bpf /sys/fs/bpf"
    )]
    NoBpffs {
        /// Where the pins should go.
        path: PathBuf,
    },
    /// Whoever owns a directory can take away what is pinned in it.
    #[error(
        "{path} belongs to user {owner}, but culvert runs as user {user}, and what it pins there \
         could be taken away: remove it (rm -r {path}), or name another directory with --pin-root; \
         chmod 700 /sys/fs/bpf lets nobody but root make directories there"
    )]
    ForeignPins {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// Others could have put anything into it, or could put another directory in its place.
    #[error(
        "others than its owner may write to {path} (mode {mode:04o}), and what is pinned there could \
         be taken away: {remedy}, or name another directory with --pin-root"
    )]
    OpenPins {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// What to do about it.
        remedy: String,
    },
    /// A link, for example, which leads where somebody else wants it to.
    #[error("{path} is not a directory: remove it, or name another one with --pin-root")]
    NoPinDirectory {
        /// What should be one.
        path: PathBuf,
    },
    /// Another server is running.
    #[error(
        "{by} uses the redirect that is pinned in {path}: stop it first; a server can also take \
         over from it, with the same --run-dir, or have a --pin-root of its own"
    )]
    InUse {
        /// Where it is pinned.
        path: PathBuf,
        /// Who uses it.
        by: Holders,
    },
    /// A directory or file of the pins.
    #[error("cannot {action} {path}")]
    Pin {
        /// What was attempted.
        action: &'static str,
        /// The pin.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel refused, perhaps for this.
    #[error("{by}")]
    Confined {
        /// Who does.
        by: Confinement,
        /// What was refused.
        #[source]
        source: Box<InstallError>,
    },
    /// The embedded object does not load.
    #[error("cannot load the redirect's programs into the kernel")]
    Load(#[source] Box<dyn Error + Send + Sync>),
    /// Somebody else holds the hook.
    #[error(
        "program {program} is attached exclusively to {cgroup} at {hook}, so no other can be: \
         attach it with a bpf_link or BPF_F_ALLOW_MULTI, or detach it \
         (bpftool cgroup detach {cgroup} {hook} id {id})"
    )]
    Exclusive {
        /// The program's id, with its name where it is known.
        program: String,
        /// Its id.
        id: u32,
        /// The cgroup that it is attached to.
        cgroup: PathBuf,
        /// The hook.
        hook: &'static str,
    },
    /// A program cannot be attached.
    #[error("cannot attach {program} to {place}")]
    Attach {
        /// The program.
        program: &'static str,
        /// The cgroup, or the network namespace.
        place: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl InstallError {
    /// The same with who confines this process, where that may be why the kernel refused.
    pub(super) fn with_confinement(self) -> Self {
        match Confinement::of_this_process() {
            Some(by) if is_denied(&self) => Self::Confined {
                by,
                source: Box::new(self),
            },
            _ => self,
        }
    }
}

/// Whether one of its causes is that something was not permitted.
fn is_denied(error: &(dyn Error + 'static)) -> bool {
    let of_system = error.downcast_ref::<io::Error>();
    let denied = of_system.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    denied || error.source().is_some_and(is_denied)
}

/// Why a table did not reach the kernel.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// More nodes than the map holds.
    #[error("{wanted} addresses are more than the {most} that the redirect can hold")]
    TooManyAddresses {
        /// How many the table has.
        wanted: usize,
        /// How many fit.
        most: usize,
    },
    /// More ports than the map holds.
    #[error("{wanted} ports are more than the {most} that the redirect can hold")]
    TooManyPorts {
        /// How many the table has.
        wanted: usize,
        /// How many fit.
        most: usize,
    },
    /// The kernel refused.
    #[error("cannot {action} the redirect's map {map}")]
    Map {
        /// What was attempted.
        action: &'static str,
        /// The map.
        map: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Why the gate could not be opened or closed.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// There is nothing to redirect to.
    #[error("no listening socket was given to redirect to")]
    NoListener,
    /// A listener on every address is no address to redirect to.
    #[error("the listener on {0} must be bound to one address, not to all of them")]
    UnspecifiedAddress(std::net::SocketAddr),
    /// One port serves both families.
    #[error("the listeners must share one port, not {v4} and {v6}")]
    DifferentPorts {
        /// The IPv4 listener's port.
        v4: u16,
        /// The IPv6 listener's port.
        v6: u16,
    },
    /// The listener's family does not fit its place.
    #[error("the listener on {0} is of the other address family")]
    WrongFamily(std::net::SocketAddr),
    /// The socket cannot be asked for its address.
    #[error("cannot ask the listening socket for its address")]
    Socket(#[source] io::Error),
    /// The kernel refused.
    #[error("cannot write the redirect's map {map}")]
    Map {
        /// The map.
        map: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another version's programs could not be replaced.
    #[error("cannot replace the programs of another version")]
    Switch(#[source] Box<InstallError>),
}
