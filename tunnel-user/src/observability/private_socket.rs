//! Unix sockets for root on this machine alone.
//!
//! A socket is made under a name of its own and then renamed into place, with its mode already
//! set: there is no moment at which others may connect, and a successor can take the name over
//! from a running process without a gap.

use std::{
    fs::{self, DirBuilder},
    io::{self, ErrorKind},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::fs::Mode;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

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
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        check(directory)?;
        let own_name = directory.join(format!("{name}.{}", std::process::id()));
        match fs::remove_file(&own_name) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = listen(&own_name)?;
        let path = directory.join(name);
        let in_place =
            fs::metadata(&own_name).and_then(|made| fs::rename(&own_name, &path).map(|()| made));
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

/// Whether the process at the other end runs as root or as this process's user.
pub fn is_trusted(peer: &UnixStream) -> io::Result<bool> {
    Ok(is_trusted_user(peer.peer_cred()?.uid()))
}

fn is_trusted_user(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// In a directory that others may write to, our name could be theirs at any time.
fn check(directory: &Path) -> io::Result<()> {
    let found = fs::metadata(directory)?;
    if is_trusted_user(found.uid()) && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        ErrorKind::PermissionDenied,
        format!(
            "{} may be written to by other users, name a directory of its own",
            directory.display()
        ),
    ))
}

/// The file gets the mode that the socket has before it is bound, whatever the umask.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(OwnedFd::from(socket).into())
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn directory_and_socket_are_for_this_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        let socket = PrivateSocket::bind(&run_dir, "a.sock").unwrap();
        let path = run_dir.join("a.sock");
        for (path, mode) in [(&run_dir, 0o700), (&path, 0o600)] {
            let found = fs::metadata(path).unwrap().mode() & 0o777;
            assert_eq!(found, mode, "{} has {found:o}", path.display());
        }
        let stream = UnixStream::connect(&path).await.unwrap();
        assert!(is_trusted(&stream).unwrap());
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_directory_that_others_may_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = PrivateSocket::bind(dir.path(), "a.sock").unwrap_err();
        assert!(error.to_string().contains("other users"), "{error}");
    }
}
