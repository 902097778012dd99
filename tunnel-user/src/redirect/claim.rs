//! Who may use a pin root: one server, and the one that takes over from it.
//!
//! The claim is a lock on the directory, so it ends with its holder, however that ends. Servers
//! that know of each other share it; whoever knows of nobody must have it alone for a moment.
//! Others cannot open the directory, so they cannot lock it either.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use rustix::fs::{major, minor};

use super::{InstallError, own_directory, pins::pin_error};

/// With whom a server shares its pins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// With nobody: the redirect is not installed while another server has it.
    #[default]
    Alone,
    /// With the server that this one takes over from.
    WithPredecessor,
}

/// Keeps others from the pins until it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    directory: File,
}

/// The processes that have claimed a pin root, as far as the kernel names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holders(Vec<u32>);

impl Claim {
    pub(super) fn new(root: &Path, sharing: Sharing) -> Result<Self, InstallError> {
        let claim = match sharing {
            Sharing::Alone => Self::alone(root)?,
            Sharing::WithPredecessor => Self::open(root)?,
        };
        claim.checked(root, claim.directory.try_lock_shared())?;
        Ok(claim)
    }

    /// Lets nobody in beside us.
    pub(super) fn alone(root: &Path) -> Result<Self, InstallError> {
        let claim = Self::open(root)?;
        claim.checked(root, claim.directory.try_lock())?;
        Ok(claim)
    }

    fn open(root: &Path) -> Result<Self, InstallError> {
        let directory = own_directory::open(root)?;
        Ok(Self { directory })
    }

    fn checked(&self, root: &Path, locked: Result<(), TryLockError>) -> Result<(), InstallError> {
        locked.map_err(|error| match error {
            TryLockError::WouldBlock => InstallError::InUse {
                path: root.to_owned(),
                by: Holders::of(&self.directory),
            },
            TryLockError::Error(error) => pin_error("lock", root)(error),
        })
    }
}

impl Drop for Claim {
    /// Closing alone would not do while a child that is being started has a copy of the descriptor.
    fn drop(&mut self) {
        let _ = self.directory.unlock();
    }
}

impl Holders {
    fn of(directory: &File) -> Self {
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        let holders = directory.metadata().map(|metadata| {
            let device = (major(metadata.dev()), minor(metadata.dev()));
            holders(&locks, device, metadata.ino())
        });
        Self(holders.unwrap_or_default())
    }
}

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.0.iter().map(u32::to_string).collect();
        match ids.as_slice() {
            [] => f.write_str("another process"),
            [one] => write!(f, "process {one}"),
            several => write!(f, "processes {}", several.join(" and ")),
        }
    }
}

/// Who locks a file, by `/proc/locks` (`proc_locks(5)`):
/// `1: FLOCK  ADVISORY  READ 3568 fd:00:2531452 0 EOF`.
fn holders(locks: &str, (major, minor): (u32, u32), inode: u64) -> Vec<u32> {
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    let holder = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        match fields.as_slice() {
            [_, "FLOCK", _, _, id, of, ..] if *of == file => id.parse().ok(),
            _ => None,
        }
    };
    let mut holders: Vec<u32> = locks.lines().filter_map(holder).collect();
    holders.sort_unstable();
    holders.dedup();
    holders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_know_of_each_other_share_and_nobody_else_gets_in() {
        let root = tempfile::tempdir().unwrap();
        let claim = |sharing| Claim::new(root.path(), sharing);
        let first = claim(Sharing::Alone).unwrap();
        let error = claim(Sharing::Alone).unwrap_err().to_string();
        assert!(error.contains("process"), "{error}");
        let second = claim(Sharing::WithPredecessor).unwrap();
        drop(first);
        assert!(claim(Sharing::Alone).is_err(), "the successor has it");
        assert!(Claim::alone(root.path()).is_err());
        drop(second);
        claim(Sharing::Alone).unwrap();
    }

    #[test]
    fn the_kernel_names_the_holders() {
        let locks = "1: FLOCK  ADVISORY  READ 3568 00:1f:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 99 00:1f:78 0 EOF\n\
                     3: POSIX  ADVISORY  WRITE 98 00:1f:77 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 97 00:1f:77 0 EOF\n\
                     4: FLOCK  ADVISORY  READ 12 00:1f:77 0 EOF\n";
        assert_eq!(holders(locks, (0, 0x1f), 77), [12, 3568]);
        assert_eq!(Holders(vec![12, 3568]).to_string(), "processes 12 and 3568");
        assert_eq!(Holders(vec![12]).to_string(), "process 12");
        assert_eq!(Holders(Vec::new()).to_string(), "another process");
    }
}
