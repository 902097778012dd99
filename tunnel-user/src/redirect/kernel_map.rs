//! A hash map or array in the kernel, typed, shared by reference, and read and written in batches.

use std::{
    collections::HashSet,
    hash::Hash,
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
};

use aya::{Pod, maps::MapData};

use crate::sys::bpf;

/// How many entries go through one system call.
const BATCH: usize = 4096;

/// A map whose keys are `K` and values `V`.
#[derive(Debug)]
pub(super) struct KernelMap<K, V> {
    map: MapData,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Pod, V: Pod> KernelMap<K, V> {
    /// Opens a pinned map; one with keys or values of other sizes is an error.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let map = MapData::from_pin(path).map_err(io::Error::other)?;
        let info = map.info().map_err(io::Error::other)?;
        let (key, value) = (info.key_size() as usize, info.value_size() as usize);
        if (key, value) != (size_of::<K>(), size_of::<V>()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{}: keys of {key} and values of {value} bytes are not ours",
                    path.display()
                ),
            ));
        }
        Ok(Self {
            map,
            types: PhantomData,
        })
    }

    pub(super) fn get(&self, key: &K) -> io::Result<Option<V>> {
        bpf::lookup(self.fd(), key)
    }

    pub(super) fn set(&self, key: &K, value: &V) -> io::Result<()> {
        bpf::update(self.fd(), key, value)
    }

    /// Whether there was such an entry.
    pub(super) fn remove(&self, key: &K) -> io::Result<bool> {
        bpf::delete(self.fd(), key)
    }

    /// Writes all entries, in the given order.
    pub(super) fn set_all(&self, entries: &[(K, V)]) -> io::Result<()> {
        for chunk in entries.chunks(BATCH) {
            let (keys, values): (Vec<K>, Vec<V>) = chunk.iter().copied().unzip();
            match bpf::update_batch(self.fd(), &keys, &values) {
                Ok(()) => {}
                Err(error) if lacks_batches(&error) => {
                    for (key, value) in chunk {
                        self.set(key, value)?;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Deletes all these entries; those that are gone already are no error.
    pub(super) fn remove_all(&self, keys: &[K]) -> io::Result<()> {
        for chunk in keys.chunks(BATCH) {
            match bpf::delete_batch(self.fd(), chunk) {
                Ok(()) => {}
                Err(error) if lacks_batches(&error) || error.kind() == io::ErrorKind::NotFound => {
                    for key in chunk {
                        self.remove(key)?;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes these the map's keys; their values mean nothing.
    pub(super) fn replace_keys(&self, keys: impl IntoIterator<Item = K>) -> io::Result<()>
    where
        K: Eq + Hash,
        V: Default,
    {
        let mut gone: HashSet<K> = self.entries()?.into_iter().map(|(key, _)| key).collect();
        let new: Vec<(K, V)> = keys
            .into_iter()
            .filter(|key| !gone.remove(key))
            .map(|key| (key, V::default()))
            .collect();
        self.set_all(&new)?;
        self.remove_all(&gone.into_iter().collect::<Vec<_>>())
    }

    /// Every entry. Those written or deleted meanwhile may be missed.
    pub(super) fn entries(&self) -> io::Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        let mut position = None;
        loop {
            let (batch, ended) = match bpf::lookup_batch(self.fd(), &mut position, BATCH) {
                Ok(batch) => batch,
                Err(error) if lacks_batches(&error) => return self.entries_one_by_one(),
                Err(error) => return Err(error),
            };
            entries.extend(batch);
            if ended {
                return Ok(entries);
            }
        }
    }

    fn entries_one_by_one(&self) -> io::Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        let mut key = None;
        while let Some(next) = bpf::next_key(self.fd(), key.as_ref())? {
            entries.extend(self.get(&next)?.map(|value| (next, value)));
            key = Some(next);
        }
        Ok(entries)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }
}

/// Kernels before 5.6, and map types without batches.
fn lacks_batches(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EOPNOTSUPP | NOT_SUPPORTED_IN_KERNEL)
    )
}

/// The kernel's `ENOTSUPP`, which is not meant for user space but reaches it.
const NOT_SUPPORTED_IN_KERNEL: i32 = 524;
