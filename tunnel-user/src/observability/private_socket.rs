//! Unix sockets for root on this machine alone.
//!
//! A socket is made under a name of its own and then renamed into place, with its mode already
//! set: there is no moment at which others may connect, and a successor can take the name over
//! from a running process without a gap.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

/// A listening socket and its file, which is removed with it, unless a successor took the name.
#[derive(Debug)]
pub struct PrivateSocket {
    /// Accepts connections.
    pub listener: UnixListener,
    /// Keeps the file.
    pub file: SocketFile,
}

/// The socket's file, while it is ours.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl PrivateSocket {
    /// Listens on `name` in `directory`, which is made if it is missing. A socket that has the name
    /// already loses it.
    pub fn bind(directory: &Path, name: &str) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let own_name = directory.join(format!("{name}.{}", std::process::id()));
        match fs::remove_file(&own_name) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&own_name)?;
        let path = directory.join(name);
        let in_place = fs::set_permissions(&own_name, fs::Permissions::from_mode(0o600))
            .and_then(|()| fs::metadata(&own_name))
            .and_then(|made| fs::rename(&own_name, &path).map(|()| made));
        match in_place {
            Ok(made) => {
                let inode = made.ino();
                Ok(Self {
                    listener,
                    file: SocketFile { path, inode },
                })
            }
            Err(error) => {
                // The first error is the one to report.
                let _ = fs::remove_file(&own_name);
                Err(error)
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "cannot remove a socket's file");
        }
    }
}
