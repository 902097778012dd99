//! A directory of pins that nobody else can write to, list or lock.
//!
//! A BPF file system is mounted with mode 1777 unless somebody says otherwise: any user may have made
//! the directory first, and could then rename or delete what is pinned in it.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use rustix::{fs::OFlags, io::Errno, process::geteuid};

use super::{InstallError, pins::pin_error};

/// The mode of directories of pins.
pub(super) const MODE: u32 = 0o700;
const OTHERS: u32 = 0o077;
const OTHERS_MAY_WRITE: u32 = 0o022;
/// In such a directory nobody but its owner renames or removes an entry.
const STICKY: u32 = 0o1000;
const THE_DIRECTORY_ITSELF: i32 = OFlags::NOFOLLOW
    .union(OFlags::DIRECTORY)
    .bits()
    .cast_signed();

/// Whether there is anything by that name. A link counts, which the kernel may refuse to follow
/// (`fs.protected_symlinks`).
pub(super) fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Opens the directory, if it is ours alone. One that others may only read, such as the kubelet makes
/// for a `hostPath`, is closed to them.
pub(super) fn open(path: &Path) -> Result<File, InstallError> {
    check_parent(path)?;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(THE_DIRECTORY_ITSELF)
        .open(path);
    let directory = opened.map_err(|error| not_opened(path, error))?;
    let metadata = directory.metadata().map_err(pin_error("read", path))?;
    let user = geteuid().as_raw();
    if metadata.uid() != user {
        return Err(InstallError::ForeignPins {
            path: path.to_owned(),
            owner: metadata.uid(),
            user,
        });
    }
    if metadata.mode() & OTHERS_MAY_WRITE != 0 {
        return Err(open_to_others(
            path,
            &metadata,
            format!("remove it (rm -r {})", path.display()),
        ));
    }
    if metadata.mode() & OTHERS != 0 {
        directory
            .set_permissions(Permissions::from_mode(MODE))
            .map_err(pin_error("close to others", path))?;
    }
    Ok(directory)
}

/// Whoever may rename the directory needs no right in it.
fn check_parent(path: &Path) -> Result<(), InstallError> {
    let Some(parent) = path.parent().filter(|parent| parent.is_absolute()) else {
        return Ok(());
    };
    let metadata = fs::metadata(parent).map_err(pin_error("read", parent))?;
    let mode = metadata.mode();
    if mode & OTHERS_MAY_WRITE != 0 && mode & STICKY == 0 {
        return Err(open_to_others(
            parent,
            &metadata,
            format!("chmod 700 {}", parent.display()),
        ));
    }
    Ok(())
}

fn open_to_others(path: &Path, metadata: &fs::Metadata, remedy: String) -> InstallError {
    InstallError::OpenPins {
        path: path.to_owned(),
        mode: metadata.mode() & 0o7777,
        remedy,
    }
}

fn not_opened(path: &Path, error: io::Error) -> InstallError {
    match Errno::from_io_error(&error) {
        Some(Errno::NOTDIR | Errno::LOOP) => InstallError::NoPinDirectory {
            path: path.to_owned(),
        },
        _ => pin_error("open", path)(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn made(mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("culvert");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (parent, path)
    }

    #[test]
    fn what_others_may_only_read_is_closed_to_them() {
        for mode in [0o755, 0o750, 0o711, 0o700] {
            let (_parent, path) = made(mode);
            open(&path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        }
    }

    #[test]
    fn what_others_may_write_to_is_refused_with_the_way_out() {
        for mode in [0o777, 0o1777, 0o770] {
            let (_parent, path) = made(mode);
            let error = open(&path).unwrap_err().to_string();
            let remedy = format!("rm -r {}", path.display());
            assert!(error.contains(&remedy), "{error}");
        }
        let (parent, path) = made(0o700);
        fs::set_permissions(parent.path(), Permissions::from_mode(0o777)).unwrap();
        let error = open(&path).unwrap_err().to_string();
        let remedy = format!("chmod 700 {}", parent.path().display());
        assert!(error.contains(&remedy), "{error}");
    }

    #[test]
    fn a_link_is_not_followed() {
        let (parent, path) = made(0o700);
        let link = parent.path().join("link");
        symlink(&path, &link).unwrap();
        let error = open(&link).unwrap_err();
        assert!(
            matches!(error, InstallError::NoPinDirectory { .. }),
            "{error}"
        );
    }
}
