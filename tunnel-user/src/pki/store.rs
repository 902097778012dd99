//! A directory of files that nobody else may read.
//!
//! A file is written beside its place and renamed into it, so that a reader sees the old content
//! or the new one, and a crash leaves one of the two. Several processes share the directory (the
//! server, and `culvert token create` beside it): who reads in order to write takes the lock.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, io::Errno};
use tracing::warn;

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const LOCK_FILE: &str = ".lock";
/// Files are called so until they are whole.
const UNFINISHED: &str = ".new-";
/// The bit of directories such as `/tmp`.
const STICKY: u32 = 0o1000;
/// Links could lead to a file of someone else, whose mode is not ours to change, and opening a
/// pipe would wait for its writer.
const PLAIN_FILES: i32 = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .bits()
    .cast_signed();

/// A directory with mode 0700 that belongs to this process's user, with files of mode 0600.
#[derive(Clone, Debug)]
pub struct PrivateDir {
    path: PathBuf,
}

/// Held while the directory's content is read and changed as one step.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
}

/// Why a directory or a file in it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refuses.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// Someone else owns it, and could have put anything into it.
    #[error(
        "{} belongs to user {owner}, but culvert runs as user {user}: run it as user {owner}, \
         hand the file over with `chown`, or name another directory with --state-dir or --cert-dir",
        path.display()
    )]
    ForeignOwner {
        /// The file or directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// A directory of something else, which others may use and would lose.
    #[error(
        "{} holds other things and is open to others (mode {mode:04o}): name a directory of \
         culvert's own with --state-dir or --cert-dir",
        path.display()
    )]
    Shared {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Something else stands where a file or directory is expected.
    #[error("{} is not a {expected}: move it away, or name another directory with --state-dir or --cert-dir", path.display())]
    WrongKind {
        /// What stands there.
        path: PathBuf,
        /// What should.
        expected: &'static str,
    },
}

impl PrivateDir {
    /// Opens the directory; makes it, and its parents, where it does not exist.
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(path)
            .map_err(failed("create the directory", path))?;
        let dir = Self {
            path: path.to_owned(),
        };
        let opened = File::open(path).map_err(failed("open", path))?;
        let metadata = opened.metadata().map_err(failed("read", path))?;
        if !metadata.is_dir() {
            return Err(wrong_kind(path, "directory"));
        }
        let shared = || Ok(mode(&metadata) & STICKY != 0 || !dir.is_of_culvert()?);
        if is_open_to_others(&metadata) && shared()? {
            return Err(StoreError::Shared {
                path: path.to_owned(),
                mode: mode(&metadata),
            });
        }
        claim(path, &opened, &metadata, DIR_MODE)?;
        Ok(dir)
    }

    /// Opens a directory that must exist; `None` where it does not.
    pub fn open(path: &Path) -> Result<Option<Self>, StoreError> {
        match fs::metadata(path) {
            Ok(_) => Self::create(path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(failed("read", path)(cause)),
        }
    }

    /// The directory of this name in this one.
    pub fn subdirectory(&self, name: &str) -> Result<Self, StoreError> {
        Self::create(&self.path.join(name))
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the file of this name is or would be.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Waits until nobody else holds the lock, in this process or another, and takes it.
    pub fn lock(&self) -> Result<StoreLock, StoreError> {
        let path = self.path.join(LOCK_FILE);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(failed("open", &path))?;
        file.lock().map_err(failed("lock", &path))?;
        Ok(StoreLock { _file: file })
    }

    /// The content of a file; `None` where there is none.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path.join(name);
        let mut file = match OpenOptions::new()
            .read(true)
            .custom_flags(PLAIN_FILES)
            .open(&path)
        {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                return Err(wrong_kind(&path, "file"));
            }
            Err(cause) => return Err(failed("open", &path)(cause)),
        };
        let metadata = file.metadata().map_err(failed("read", &path))?;
        if !metadata.is_file() {
            return Err(wrong_kind(&path, "file"));
        }
        claim(&path, &file, &metadata, FILE_MODE)?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)
            .map_err(failed("read", &path))?;
        Ok(Some(content))
    }

    /// Writes a file as a whole: it has this content once this returns, whatever happens then.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), StoreError> {
        let path = self.path.join(name);
        // `tempfile` makes files of mode 0600.
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.path)
            .map_err(failed("create a file in", &self.path))?;
        file.write_all(content)
            .and_then(|()| file.as_file().sync_all())
            .map_err(failed("write", &path))?;
        file.persist(&path)
            .map_err(|error| failed("replace", &path)(error.error))?;
        self.sync()
    }

    /// Removes a file; whether there was one.
    pub fn remove(&self, name: &str) -> Result<bool, StoreError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Ok(()) => self.sync().map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(failed("remove", &path)(cause)),
        }
    }

    /// The files whose names end in `.json`, without that ending, in order.
    pub fn records(&self) -> Result<Vec<String>, StoreError> {
        let failed = || failed("list", &self.path);
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            let record = name.to_str().and_then(|name| name.strip_suffix(".json"));
            records.extend(record.map(str::to_owned));
        }
        records.sort();
        Ok(records)
    }

    /// Whether it is new, or has been made for culvert: nothing is in it but files and directories
    /// of the names that culvert gives.
    fn is_of_culvert(&self) -> Result<bool, StoreError> {
        let failed = || failed("list", &self.path);
        for entry in fs::read_dir(&self.path).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            if !name.to_str().is_some_and(is_our_name) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn sync(&self) -> Result<(), StoreError> {
        File::open(&self.path)
            .and_then(|dir| dir.sync_all())
            .map_err(failed("write", &self.path))
    }
}

fn is_our_name(name: &str) -> bool {
    let directories = ["nodes", "tokens", "pki"];
    let endings = [".pem", ".key", ".json"];
    name == LOCK_FILE
        || name.starts_with(UNFINISHED)
        || directories.contains(&name)
        || endings.iter().any(|ending| name.ends_with(ending))
}

fn mode(metadata: &fs::Metadata) -> u32 {
    metadata.mode() & 0o7777
}

fn is_open_to_others(metadata: &fs::Metadata) -> bool {
    mode(metadata) & 0o077 != 0
}

/// Refuses what is not ours; closes what others may look into.
fn claim(
    path: &Path,
    opened: &File,
    metadata: &fs::Metadata,
    wanted: u32,
) -> Result<(), StoreError> {
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(StoreError::ForeignOwner {
            path: path.to_owned(),
            owner: metadata.uid(),
            user,
        });
    }
    if is_open_to_others(metadata) {
        // A kubelet, say, has just made it.
        let empty = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        if !empty {
            warn!(path = %path.display(), found = format!("{:04o}", mode(metadata)),
                now = format!("{wanted:04o}"),
                "others had access to private state; took it away, but they may have read it");
        }
        opened
            .set_permissions(Permissions::from_mode(wanted))
            .map_err(failed("change the mode of", path))?;
    }
    Ok(())
}

fn wrong_kind(path: &Path, expected: &'static str) -> StoreError {
    StoreError::WrongKind {
        path: path.to_owned(),
        expected,
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |cause| StoreError::Io {
        action,
        path,
        cause,
    }
}
