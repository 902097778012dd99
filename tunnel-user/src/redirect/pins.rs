//! Where everything is pinned, so that it outlives the server and the next one adopts it.
//!
//! ```text
//! <root>/v1/nodes, ports, ...    maps; one directory for each version of their layout
//! <root>/v1/link_connect4, ...   links, which keep the programs attached
//! ```

use std::{
    fmt, fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use tunnel_ebpf::{ABI, programs};

use super::{InstallError, claim::Claim, own_directory};

const LINK_PREFIX: &str = "link_";

/// The pins of this version of the layout, and what older versions left beside them.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    root: PathBuf,
    directory: PathBuf,
}

impl Pins {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            directory: root.join(format!("v{ABI}")),
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the directories, or finds them to be this user's alone.
    pub(super) fn create(&self) -> Result<(), InstallError> {
        for path in [&self.root, &self.directory] {
            let made = fs::DirBuilder::new()
                .recursive(true)
                .mode(own_directory::MODE)
                .create(path);
            match made {
                // A link that may not be followed is told for what it is when it is opened.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.map_err(pin_error("make", path))?,
            }
            own_directory::open(path)?;
        }
        Ok(())
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(super) fn link(&self, program: &str) -> PathBuf {
        self.directory.join(format!("{LINK_PREFIX}{program}"))
    }

    /// A map of each server of another version.
    pub(super) fn other_maps(&self, name: &str) -> Vec<PathBuf> {
        let paths = self.other_versions().into_iter();
        paths.map(|directory| directory.join(name)).collect()
    }

    /// The link of a program that a server of an older version left.
    pub(super) fn older_link(&self, program: &str) -> Option<PathBuf> {
        let name = format!("{LINK_PREFIX}{program}");
        self.other_versions()
            .into_iter()
            .map(|directory| directory.join(&name))
            .find(|path| path.exists())
    }

    /// Whether a server of another version is attached and none of this one.
    pub(super) fn belong_to_another_version(&self) -> bool {
        let mut names = programs::ALL.into_iter();
        names.clone().all(|name| !self.link(name).exists())
            && names.any(|name| self.older_link(name).is_some())
    }

    /// Removes the other versions' directories; their maps go with the programs that used them.
    pub(super) fn remove_other_versions(&self) -> Result<Vec<PathBuf>, InstallError> {
        let removed = self.other_versions();
        for directory in &removed {
            fs::remove_dir_all(directory).map_err(pin_error("remove", directory))?;
        }
        Ok(removed)
    }

    fn other_versions(&self) -> Vec<PathBuf> {
        self.versions()
            .filter(|path| *path != self.directory)
            .collect()
    }

    fn versions(&self) -> impl Iterator<Item = PathBuf> {
        fs::read_dir(&self.root)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| is_version(path))
    }
}

/// What [`super::uninstall`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Removed {
    /// The links, each of which kept a program attached.
    pub links: Vec<PathBuf>,
    /// The maps.
    pub maps: Vec<PathBuf>,
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.links.is_empty() && self.maps.is_empty() {
            return f.write_str("nothing is installed, nothing was removed");
        }
        write!(
            f,
            "removed {} programs and {} maps",
            self.links.len(),
            self.maps.len()
        )
    }
}

/// Unpins everything below the root: first what redirects, last what hands over, so that no connect
/// is redirected without a way to tell where it was meant to go.
pub(super) fn remove_all(root: &Path) -> Result<Removed, InstallError> {
    if !own_directory::is_there(root) {
        return Ok(Removed::default());
    }
    let _claim = Claim::alone(root)?;
    let pins = Pins::new(root);
    let mut removed = Removed::default();
    for directory in pins.versions() {
        own_directory::open(&directory)?;
        for program in programs::ALL.into_iter().rev() {
            let link = directory.join(format!("{LINK_PREFIX}{program}"));
            if remove_if_there(&link)? {
                removed.links.push(link);
            }
        }
        for entry in fs::read_dir(&directory).map_err(pin_error("read", &directory))? {
            let path = entry.map_err(pin_error("read", &directory))?.path();
            if remove_if_there(&path)? {
                removed.maps.push(path);
            }
        }
        fs::remove_dir(&directory).map_err(pin_error("remove", &directory))?;
    }
    match fs::remove_dir(root) {
        Ok(()) => {}
        // Somebody else's files are in it, or it is mounted into this container.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy
            ) => {}
        Err(error) => return Err(pin_error("remove", root)(error)),
    }
    Ok(removed)
}

/// Whether there was something to remove.
pub(super) fn remove_if_there(path: &Path) -> Result<bool, InstallError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(pin_error("remove", path)(error)),
    }
}

pub(super) fn pin_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::Pin {
        action,
        path,
        source,
    }
}

fn is_version(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.strip_prefix('v'))
        .is_some_and(|number| number.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_version_directories_are_ours() {
        for (name, ours) in [
            ("v1", true),
            ("v12", true),
            ("v", false),
            ("vx", false),
            ("1", false),
        ] {
            assert_eq!(is_version(&Path::new("/pins").join(name)), ours, "{name}");
        }
    }

    #[test]
    fn another_versions_links_are_found_and_removed_with_their_maps() {
        let root = tempfile::tempdir().unwrap();
        let pins = Pins::new(root.path());
        pins.create().unwrap();
        assert!(!pins.belong_to_another_version());

        let older = root.path().join("v0");
        fs::create_dir(&older).unwrap();
        fs::write(older.join("link_connect4"), "").unwrap();
        fs::write(older.join("nodes"), "").unwrap();
        assert!(pins.belong_to_another_version());
        assert_eq!(
            pins.older_link(programs::CONNECT4),
            Some(older.join("link_connect4"))
        );

        assert_eq!(pins.remove_other_versions().unwrap(), [older]);
        assert!(!pins.belong_to_another_version());
    }

    #[test]
    fn removing_all_leaves_what_is_not_ours() {
        let root = tempfile::tempdir().unwrap();
        let pins = Pins::new(root.path());
        pins.create().unwrap();
        fs::write(pins.map("nodes"), "").unwrap();
        fs::write(pins.link("connect4"), "").unwrap();
        fs::write(root.path().join("notes"), "").unwrap();

        let removed = remove_all(root.path()).unwrap();
        assert_eq!(removed.links, [pins.link("connect4")]);
        assert_eq!(removed.maps, [pins.map("nodes")]);
        assert!(root.path().join("notes").exists() && !pins.directory().exists());
        assert_eq!(
            remove_all(&root.path().join("absent")).unwrap(),
            Removed::default()
        );
    }
}
