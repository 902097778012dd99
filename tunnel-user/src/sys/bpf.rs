//! The bpf(2) commands that aya does not offer: replacing a link's program, link and cgroup
//! queries, and batches.
//!
//! Every function fills the [`bpf_attr`] fields of one command, as `linux/bpf.h` lays them out,
//! and passes no pointer that outlives the call.
//!
//! [`bpf_attr`]: https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/bpf.h#L1489
#![expect(
    unsafe_code,
    reason = "system calls whose pointers the compiler cannot check"
)]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr,
};

use aya::Pod;
use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};

const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;
const MAP_GET_NEXT_KEY: libc::c_long = 4;
const OBJ_GET: libc::c_long = 7;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
const MAP_LOOKUP_BATCH: libc::c_long = 24;
const MAP_UPDATE_BATCH: libc::c_long = 26;
const MAP_DELETE_BATCH: libc::c_long = 27;
const LINK_UPDATE: libc::c_long = 29;

const LINK_TYPE_CGROUP: u32 = 3;
const LINK_TYPE_NETNS: u32 = 5;

/// The attribute of one command; what a command does not use must be zero.
#[repr(C, align(8))]
struct Attr([u8; 128]);

impl Attr {
    fn new() -> Self {
        Self([0; 128])
    }

    fn u32(mut self, offset: usize, value: u32) -> Self {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(mut self, offset: usize, value: u64) -> Self {
        self.0[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn fd(self, offset: usize, fd: impl AsFd) -> Self {
        self.u32(offset, fd.as_fd().as_raw_fd().cast_unsigned())
    }

    fn pointer<T>(self, offset: usize, pointer: *const T) -> Self {
        self.u64(offset, pointer.addr() as u64)
    }

    fn get_u32(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[offset..offset + 4]);
        u32::from_ne_bytes(bytes)
    }

    /// # Safety
    /// The pointers in the attribute must be valid for what `command` reads and writes there.
    unsafe fn call(&mut self, command: libc::c_long) -> io::Result<i32> {
        // SAFETY: the kernel reads and writes the attribute within its size; the caller answers
        // for the pointers in it.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), self.0.len()) };
        i32::try_from(result)
            .ok()
            .filter(|result| *result >= 0)
            .ok_or_else(io::Error::last_os_error)
    }
}

/// What the kernel says about a link to a cgroup or a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) program_id: u32,
    /// The inode of the cgroup's directory, or of the namespace; 0 once it is gone.
    pub(crate) place_id: u64,
}

/// The programs attached to a cgroup itself at one hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) program_ids: Vec<u32>,
    /// `BPF_F_ALLOW_OVERRIDE` (1), `BPF_F_ALLOW_MULTI` (2), or 0: exclusive.
    pub(crate) flags: u32,
}

/// Opens a pinned object (`BPF_OBJ_GET`).
pub(crate) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = Attr::new().pointer(0, path.as_ptr());
    // SAFETY: the path is a C string that outlives the call.
    let fd = unsafe { attr.call(OBJ_GET)? };
    // SAFETY: the kernel returned a new descriptor that is ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Replaces the program of a link, without a moment in between (`BPF_LINK_UPDATE`).
pub(crate) fn update_link(link: impl AsFd, program: impl AsFd) -> io::Result<()> {
    let mut attr = Attr::new().fd(0, link).fd(4, program);
    // SAFETY: the command takes no pointers.
    unsafe { attr.call(LINK_UPDATE).map(drop) }
}

/// Asks about a link; an error of kind `InvalidData` if it is neither to a cgroup nor to a network
/// namespace.
pub(crate) fn link(link: impl AsFd) -> io::Result<Link> {
    // struct bpf_link_info: type, id, prog_id, (padding), then one of
    //   cgroup { cgroup_id: u64, attach_type }, netns { netns_ino: u32, attach_type }
    let mut info = Attr::new();
    let length = u32::try_from(info.0.len()).expect("128 fits");
    let mut attr = Attr::new()
        .fd(0, link)
        .u32(4, length)
        .pointer(8, info.0.as_mut_ptr());
    // SAFETY: the kernel writes at most the given length into the buffer.
    unsafe { attr.call(OBJ_GET_INFO_BY_FD)? };
    let low = u64::from(info.get_u32(16));
    let place_id = match info.get_u32(0) {
        LINK_TYPE_CGROUP => low | u64::from(info.get_u32(20)) << 32,
        LINK_TYPE_NETNS => low,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the pinned link is neither one to a cgroup nor to a network namespace",
            ));
        }
    };
    Ok(Link {
        program_id: info.get_u32(8),
        place_id,
    })
}

/// Lists the programs attached to this very cgroup at one hook (`BPF_PROG_QUERY`).
pub(crate) fn attached_programs(cgroup: impl AsFd, attach_type: u32) -> io::Result<Attached> {
    let mut program_ids = [0_u32; 64];
    let mut attr = Attr::new()
        .fd(0, cgroup)
        .u32(4, attach_type)
        .pointer(16, program_ids.as_mut_ptr())
        .u32(24, 64);
    // SAFETY: the kernel writes at most the given number of ids.
    unsafe { attr.call(PROG_QUERY)? };
    let count = (attr.get_u32(24) as usize).min(program_ids.len());
    Ok(Attached {
        program_ids: program_ids[..count].to_vec(),
        flags: attr.get_u32(12),
    })
}

/// Reads one entry.
pub(crate) fn lookup<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = Vec::<V>::with_capacity(1);
    let mut attr = element(map, key, value.as_mut_ptr());
    // SAFETY: the map's key and value have these types' sizes, checked when it was opened.
    match unsafe { attr.call(MAP_LOOKUP_ELEM) } {
        Ok(_) => {
            // SAFETY: the kernel wrote the whole value.
            unsafe { value.set_len(1) };
            Ok(value.pop())
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes one entry.
pub(crate) fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let mut attr = element(map, key, ptr::from_ref(value));
    // SAFETY: the map's key and value have these types' sizes, checked when it was opened.
    unsafe { attr.call(MAP_UPDATE_ELEM).map(drop) }
}

/// Deletes one entry; false if there was none.
pub(crate) fn delete<K: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    let mut attr = element(map, key, ptr::null::<u8>());
    // SAFETY: the map's key has this type's size, checked when it was opened.
    match unsafe { attr.call(MAP_DELETE_ELEM) } {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The key after `key`, or the first.
pub(crate) fn next_key<K: Pod>(map: BorrowedFd<'_>, key: Option<&K>) -> io::Result<Option<K>> {
    let mut next = Vec::<K>::with_capacity(1);
    let mut attr = Attr::new()
        .fd(0, map)
        .pointer(8, key.map_or(ptr::null(), ptr::from_ref))
        .pointer(16, next.as_mut_ptr());
    // SAFETY: the map's key has this type's size, checked when it was opened.
    match unsafe { attr.call(MAP_GET_NEXT_KEY) } {
        Ok(_) => {
            // SAFETY: the kernel wrote the whole key.
            unsafe { next.set_len(1) };
            Ok(next.pop())
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes many entries.
pub(crate) fn update_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    assert_eq!(keys.len(), values.len(), "a value for every key");
    let mut attr = batch(map, keys.as_ptr(), values.as_ptr(), keys.len());
    // SAFETY: both arrays hold the given number of elements of the map's types.
    unsafe { attr.call(MAP_UPDATE_BATCH).map(drop) }
}

/// Deletes many entries. Stops with `ENOENT` at one that is absent.
pub(crate) fn delete_batch<K: Pod>(map: BorrowedFd<'_>, keys: &[K]) -> io::Result<()> {
    let mut attr = batch(map, keys.as_ptr(), ptr::null::<u8>(), keys.len());
    // SAFETY: the array holds the given number of keys of the map's type.
    unsafe { attr.call(MAP_DELETE_BATCH).map(drop) }
}

/// Reads up to `most` entries from `position` on, which it advances; true at the end of the map.
pub(crate) fn lookup_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    position: &mut Option<u64>,
    most: usize,
) -> io::Result<(Vec<(K, V)>, bool)> {
    let mut keys = Vec::<K>::with_capacity(most);
    let mut values = Vec::<V>::with_capacity(most);
    let mut next = 0_u64;
    let current = position.as_ref().map_or(ptr::null(), ptr::from_ref);
    let mut attr = batch(map, keys.as_mut_ptr(), values.as_mut_ptr(), most)
        .pointer(0, current)
        .pointer(8, &raw mut next);
    // SAFETY: both arrays have room for `most` elements of the map's types; hash maps use four
    // bytes of a position.
    let ended = match unsafe { attr.call(MAP_LOOKUP_BATCH) } {
        Ok(_) => false,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
        Err(error) => return Err(error),
    };
    let count = (attr.get_u32(32) as usize).min(most);
    // SAFETY: the kernel wrote `count` keys and values.
    unsafe {
        keys.set_len(count);
        values.set_len(count);
    }
    *position = Some(next);
    Ok((keys.into_iter().zip(values).collect(), ended))
}

/// Registers the programs' log with the runtime, to wait for its lines.
pub(crate) fn wait_for_log<T>(logger: EbpfLogger<T>) -> io::Result<AsyncFd<EbpfLogger<T>>> {
    // SAFETY: the logger owns one descriptor, that of its ring buffer, and always answers with it.
    unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }.map_err(Into::into)
}

fn element<K, V>(map: BorrowedFd<'_>, key: &K, value: *const V) -> Attr {
    Attr::new()
        .fd(0, map)
        .pointer(8, ptr::from_ref(key))
        .pointer(16, value)
}

/// `in_batch`, `out_batch`, `keys`, `values`: u64; `count`, `map_fd`: u32; two words of flags
fn batch<K, V>(map: BorrowedFd<'_>, keys: *const K, values: *const V, count: usize) -> Attr {
    let count = u32::try_from(count).expect("no map holds more entries");
    Attr::new()
        .pointer(16, keys)
        .pointer(24, values)
        .u32(32, count)
        .fd(36, map)
}
