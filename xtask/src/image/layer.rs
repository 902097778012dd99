//! The files of an image, as a tar that is the same whenever and wherever it is made.
//!
//! Everything belongs to root, is as old as the epoch, and comes in the order of its name.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use tar::{Builder, EntryType, Header};

/// A root file system with a single layer.
#[derive(Default)]
pub(crate) struct Layer {
    entries: BTreeMap<String, Entry>,
}

enum Entry {
    Directory { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link { target: String },
}

impl Layer {
    /// Adds a directory; those above it have to be added as well.
    #[must_use]
    pub(crate) fn directory(self, path: &str, mode: u32) -> Self {
        self.entry(path, Entry::Directory { mode })
    }

    /// Adds a file.
    #[must_use]
    pub(crate) fn file(self, path: &str, mode: u32, content: Vec<u8>) -> Self {
        self.entry(path, Entry::File { mode, content })
    }

    /// Adds a symbolic link.
    #[must_use]
    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        let target = target.to_owned();
        self.entry(path, Entry::Link { target })
    }

    fn entry(mut self, path: &str, entry: Entry) -> Self {
        self.entries.insert(path.to_owned(), entry);
        self
    }

    /// The layer's tar, uncompressed: its digest is its diff id.
    pub(crate) fn to_tar(&self) -> Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            append(&mut tar, path, entry).with_context(|| format!("pack {path}"))?;
        }
        Ok(tar.into_inner()?)
    }
}

fn append(tar: &mut Builder<Vec<u8>>, path: &str, entry: &Entry) -> Result<()> {
    match entry {
        Entry::Directory { mode } => {
            let mut header = header(EntryType::Directory, *mode, 0);
            tar.append_data(&mut header, path, [].as_slice())?;
        }
        Entry::File { mode, content } => append_file(tar, path, *mode, content)?,
        Entry::Link { target } => {
            let mut header = header(EntryType::Symlink, 0o777, 0);
            tar.append_link(&mut header, path, target)?;
        }
    }
    Ok(())
}

/// A file of fixed owner and age.
pub(super) fn append_file(
    tar: &mut Builder<Vec<u8>>,
    path: &str,
    mode: u32,
    content: &[u8],
) -> Result<()> {
    let mut header = header(EntryType::Regular, mode, content.len() as u64);
    tar.append_data(&mut header, path, content)?;
    Ok(())
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
