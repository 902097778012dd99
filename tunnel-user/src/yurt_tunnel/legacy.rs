//! The chains of legacy iptables, as `iptables-legacy` reads them: a table is a list of entries, and where a chain
//! begins stands an entry with its name.

use std::{ffi::CStr, fs, io};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::{ATTEMPTS, TABLE};
use crate::{model::Family, sys::socket::read_option};

/// <https://github.com/torvalds/linux/blob/v5.10/include/uapi/linux/netfilter_ipv4/ip_tables.h#L130>, the same of IPv6
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
/// The table's name comes first in both.
const NAME: usize = 32;
/// `struct ipt_getinfo`, whose last word is the size of all entries.
const INFO: usize = 84;
/// `struct ipt_get_entries` before the entries.
const HEADER: usize = 40;
/// `struct xt_entry_target`: the size, the name, the revision.
const TARGET: usize = 32;
/// The target that is none: the name of a chain follows it, or the end of the table.
const CHAIN_HEAD: &str = "ERROR";

/// Where an entry says how long it is, and where its target is.
struct Layout {
    level: libc::c_int,
    domain: AddressFamily,
    /// Names the tables that there are: to ask for another one would make the kernel load it.
    tables: &'static str,
    target_offset: usize,
}

fn layout(family: Family) -> Layout {
    match family {
        Family::V4 => Layout {
            level: libc::IPPROTO_IP,
            domain: AddressFamily::INET,
            tables: "/proc/thread-self/net/ip_tables_names",
            target_offset: 88,
        },
        Family::V6 => Layout {
            level: libc::IPPROTO_IPV6,
            domain: AddressFamily::INET6,
            tables: "/proc/thread-self/net/ip6_tables_names",
            target_offset: 140,
        },
    }
}

/// The names of the chains of table `nat`.
pub(super) fn nat_chains(family: Family) -> io::Result<Vec<String>> {
    let layout = layout(family);
    match fs::read_to_string(layout.tables) {
        Ok(tables) if tables.lines().any(|table| table == TABLE) => {}
        Ok(_) => return Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    }
    for _ in 0..ATTEMPTS {
        match entries(&layout) {
            Ok(entries) => return Ok(chains(&entries, &layout)),
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(
        "the table nat of legacy iptables changes all the time",
    ))
}

fn entries(layout: &Layout) -> io::Result<Vec<u8>> {
    // Any socket of the family will do, and this one takes no capability by itself.
    let socket = socket_with(layout.domain, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut info = [0; INFO];
    info[..TABLE.len()].copy_from_slice(TABLE.as_bytes());
    read_option(&socket, layout.level, GET_INFO, &mut info)?;
    let size: [u8; 4] = info[INFO - 4..].try_into().expect("four bytes");
    let mut table = vec![0; HEADER + usize::try_from(u32::from_ne_bytes(size)).unwrap_or(0)];
    table[..TABLE.len()].copy_from_slice(TABLE.as_bytes());
    table[NAME..NAME + 4].copy_from_slice(&size);
    read_option(&socket, layout.level, GET_ENTRIES, &mut table)?;
    table.drain(..HEADER);
    Ok(table)
}

fn chains(entries: &[u8], layout: &Layout) -> Vec<String> {
    let mut rest = entries;
    let mut chains = Vec::new();
    while let Some((entry, next)) = entry(rest, layout) {
        chains.extend(chain_that_begins(entry, layout));
        rest = next;
    }
    chains
}

fn u16_at(bytes: &[u8], place: usize) -> Option<usize> {
    let bytes = bytes.get(place..place + 2)?.try_into().ok()?;
    Some(u16::from_ne_bytes(bytes).into())
}

fn entry<'a>(bytes: &'a [u8], layout: &Layout) -> Option<(&'a [u8], &'a [u8])> {
    let length = u16_at(bytes, layout.target_offset + 2)?;
    (length > 0).then(|| bytes.split_at_checked(length))?
}

fn chain_that_begins(entry: &[u8], layout: &Layout) -> Option<String> {
    let target = entry.get(u16_at(entry, layout.target_offset)?..)?;
    let name_at = |place: usize| {
        CStr::from_bytes_until_nul(target.get(place..)?)
            .ok()?
            .to_str()
            .ok()
    };
    (name_at(2)? == CHAIN_HEAD).then(|| name_at(TARGET).map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry as iptables writes one: what it matches, then the target's size, name and revision, then its data.
    fn entry_of(layout: &Layout, target: &str, data: &str) -> Vec<u8> {
        let target_at = layout.target_offset + 4 + 20;
        let length = target_at + TARGET + 32;
        let mut entry = vec![0; length];
        let mut write = |place: usize, bytes: &[u8]| {
            entry[place..place + bytes.len()].copy_from_slice(bytes);
        };
        let number = |number: usize| u16::try_from(number).unwrap().to_ne_bytes();
        write(layout.target_offset, &number(target_at));
        write(layout.target_offset + 2, &number(length));
        write(target_at + 2, target.as_bytes());
        write(target_at + TARGET, data.as_bytes());
        entry
    }

    #[test]
    fn chains_begin_where_an_entry_names_them() {
        for family in Family::ALL {
            let layout = layout(family);
            let table = [
                entry_of(&layout, "", "TUNNEL-PORT"),
                entry_of(&layout, CHAIN_HEAD, "TUNNEL-PORT"),
                entry_of(&layout, "DNAT", "TUNNEL-PORT"),
                entry_of(&layout, CHAIN_HEAD, "TUNNEL-PORT-10250"),
                entry_of(&layout, CHAIN_HEAD, CHAIN_HEAD),
            ]
            .concat();
            let found = chains(&table, &layout);
            assert_eq!(found, ["TUNNEL-PORT", "TUNNEL-PORT-10250", CHAIN_HEAD]);
        }
    }

    #[test]
    fn a_table_that_is_cut_off_or_says_wrong_lengths_ends_there() {
        let layout = layout(Family::V4);
        let one = entry_of(&layout, CHAIN_HEAD, "TUNNEL-PORT");
        for length in 0..one.len() {
            assert!(chains(&one[..length], &layout).is_empty(), "{length} bytes");
        }
        for (place, said) in [(0, u16::MAX), (2, 0), (2, u16::MAX)] {
            let mut wrong = one.clone();
            let place = layout.target_offset + place;
            wrong[place..place + 2].copy_from_slice(&said.to_ne_bytes());
            assert!(chains(&wrong, &layout).is_empty(), "{place}: {said}");
        }
    }
}
