//! How the redirect is installed, and whom it serves.

use std::{path::PathBuf, time::Duration};

use super::{LocalRanges, LogLevel, Sharing};

/// How the redirect is installed.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cgroup whose processes' connects are captured; `None`: the root, which is all of them.
    /// The server must be in it too, for its accepted sockets to be told their original destination.
    pub cgroup: Option<PathBuf>,
    /// The directory of a BPF file system in which everything is pinned.
    pub pin_root: PathBuf,
    /// With whom.
    pub sharing: Sharing,
    /// Sockets with this mark (`SO_MARK`) are left alone; 0: no mark is.
    pub mark: u32,
    /// Which local addresses stand for nodes. Those for pods and IPv6 must be routed to the loopback
    /// interface; see [`super::addresses::local_route`].
    pub ranges: LocalRanges,
    /// Whose connects are captured.
    pub clients: Clients,
    /// The gate closes when the last [`super::Heartbeat`] is older.
    pub heartbeat_max_age: Duration,
    /// Loads the programs that log; `None`: the plain ones.
    pub log_level: Option<LogLevel>,
}

/// Whose connects are captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clients {
    /// Those of every process of this machine, pods included.
    #[default]
    All,
    /// Those of processes in the server's own network namespace.
    OwnNamespace,
}

impl Clients {
    pub(super) fn code(self) -> u16 {
        let code = match self {
            Self::All => tunnel_ebpf::clients::ALL,
            Self::OwnNamespace => tunnel_ebpf::clients::OWN_NAMESPACE,
        };
        u16::try_from(code).expect("a small code")
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cgroup: None,
            pin_root: PathBuf::from("/sys/fs/bpf/culvert"),
            sharing: Sharing::default(),
            mark: 0,
            ranges: LocalRanges::default(),
            clients: Clients::default(),
            heartbeat_max_age: Duration::from_secs(4),
            log_level: None,
        }
    }
}
