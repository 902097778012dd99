//! The registrations as last read from their directory.

use std::{collections::BTreeMap, fs, io, os::unix::fs::MetadataExt as _, path::Path};

use tracing::warn;

use super::{Registration, StateError, chain, registry::ENROL_ANEW, state::read_record};
use crate::pki::PrivateDir;

/// Remembers each file's last good content.
pub(super) struct Scan {
    dir: PrivateDir,
    files: BTreeMap<String, Seen>,
}

struct Seen {
    stamp: Option<Stamp>,
    registration: Option<Registration>,
}

/// Differs whenever a file's content may: every write makes a new inode or touches these times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    changed: (i64, i64),
    modified: (i64, i64),
}

impl Scan {
    pub(super) fn new(dir: PrivateDir) -> Self {
        Self {
            dir,
            files: BTreeMap::new(),
        }
    }

    /// The nodes, by name.
    pub(super) fn registrations(&self) -> impl Iterator<Item = &Registration> {
        self.files
            .values()
            .filter_map(|seen| seen.registration.as_ref())
    }

    /// Reads what changed, and says how many files that were. A file that cannot be read keeps the
    /// state that it had.
    pub(super) fn refresh(&mut self) -> Result<usize, StateError> {
        let names = self.dir.records()?;
        self.files
            .retain(|name, _| names.binary_search(name).is_ok());
        let mut read = 0;
        for name in names {
            let stamp = Stamp::of(&self.dir.file(&format!("{name}.json")));
            let unchanged = |seen: &Seen| stamp.is_some() && seen.stamp == stamp;
            if self.files.get(&name).is_some_and(unchanged) {
                continue;
            }
            self.read(name, stamp);
            read += 1;
        }
        Ok(read)
    }

    fn read(&mut self, name: String, stamp: Option<Stamp>) {
        let record = read_record::<Registration>(&self.dir, &name, ENROL_ANEW);
        let registration = match record {
            // Removed since the directory was listed.
            Ok(None) => return drop(self.files.remove(&name)),
            Ok(Some(registration)) if registration.name.as_str() == name => Some(registration),
            Ok(Some(registration)) => {
                warn!(file = %self.dir.file(&format!("{name}.json")).display(), names = %registration.name,
                    "a registration names another node than its file does; rename or remove the file");
                self.last_good(&name)
            }
            Err(error) => {
                warn!(
                    error = chain(&error),
                    "cannot read a registration, keeping the node's last state"
                );
                self.last_good(&name)
            }
        };
        self.files.insert(
            name,
            Seen {
                stamp,
                registration,
            },
        );
    }

    fn last_good(&mut self, name: &str) -> Option<Registration> {
        self.files.get_mut(name)?.registration.take()
    }
}

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        let of = |metadata: fs::Metadata| Self {
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        };
        let metadata: io::Result<fs::Metadata> = fs::metadata(file);
        metadata.map(of).ok()
    }
}
