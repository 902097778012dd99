//! Where a cluster keeps its files. Everything that a machine of it mounts or writes is below one directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A socket of containerd has the longest path; the kernel takes 107 bytes for one (`unix(7)`).
const LONGEST_SOCKET: &str = "/control-plane/containerd/containerd.sock.ttrpc";
const SOCKET_PATH_LIMIT: usize = 107;

/// The directory of one cluster.
#[derive(Debug, Clone)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// Names the directory; makes nothing.
    pub fn new(root: impl Into<PathBuf>) -> Result<Self> {
        let root = std::path::absolute(root.into()).context("the directory of the cluster")?;
        if root.as_os_str().len() + LONGEST_SOCKET.len() > SOCKET_PATH_LIMIT {
            bail!(
                "{} is too long for the sockets that will be in it; name a shorter --directory",
                root.display()
            );
        }
        Ok(Self { root })
    }

    /// The whole of it.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file that says what is where, such as `cluster.json`.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// What the programs say.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// The kubeconfig of `who`: `admin`, `kube-scheduler`, ...
    pub fn kubeconfig(&self, who: &str) -> PathBuf {
        self.root.join("kubeconfig").join(who)
    }

    /// An object that is handed to kubectl.
    pub(super) fn applied(&self, name: &str) -> PathBuf {
        self.root.join("applied").join(format!("{name}.json"))
    }

    /// What is known of the running programs.
    pub(super) fn programs(&self) -> PathBuf {
        self.root.join("programs")
    }

    /// The disk of a machine, so to speak.
    pub fn machine(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes the directories that are no machine's.
    pub(super) fn make(&self) -> Result<()> {
        let own = ["applied", "kubeconfig"].map(|name| self.root.join(name));
        for path in [self.logs(), self.pki(), self.programs()]
            .iter()
            .chain(&own)
        {
            make(path)?;
        }
        Ok(())
    }

    /// Reads one of the files that [`Self::write`] wrote; none if there is no such file.
    pub(super) fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let path = self.file(name);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .with_context(|| format!("read {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Writes a value as JSON.
    pub(super) fn write(&self, name: &str, value: &impl Serialize) -> Result<()> {
        write_json(&self.file(name), value)
    }
}

/// Makes a directory with those above it.
pub(super) fn make(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))
}

/// Writes a configuration file; where YAML is asked for, JSON is YAML.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
