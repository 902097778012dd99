//! The chains of `nf_tables`, asked for by netlink: one dump of all chains of a family.

use std::{ffi::CStr, io, time::Duration};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};

use super::{ATTEMPTS, TABLE};
use crate::model::Family;

/// <https://github.com/torvalds/linux/blob/v5.10/include/uapi/linux/netfilter/nfnetlink.h#L57>
const NFTABLES: u16 = 10 << 8;
/// <https://github.com/torvalds/linux/blob/v5.10/include/uapi/linux/netfilter/nf_tables.h#L97>
const NEW_CHAIN: u16 = NFTABLES | 3;
const GET_CHAIN: u16 = NFTABLES | 4;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
/// <https://github.com/torvalds/linux/blob/v5.10/include/uapi/linux/netlink.h#L53>
const REQUEST_DUMP: u16 = 0x1 | 0x300;
/// The chains have changed during the dump, which may lack some.
const DUMP_INTERRUPTED: u16 = 0x10;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
/// What follows the header in messages of netfilter.
const GENERIC: usize = 4;
/// The kernel writes no more at once.
const BUFFER: usize = 64 << 10;
/// It answers at once, if at all.
const PATIENCE: Duration = Duration::from_secs(5);

/// The names of the chains of table `nat`.
pub(super) fn nat_chains(family: Family) -> io::Result<Vec<String>> {
    for _ in 0..ATTEMPTS {
        match dump(family) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // This kernel has no such tables.
            Err(error) if is_absent(&error) => return Ok(Vec::new()),
            dumped => return dumped,
        }
    }
    Err(io::Error::other(
        "the chains of nf_tables change all the time",
    ))
}

fn dump(family: Family) -> io::Result<Vec<String>> {
    let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
    let socket = socket_with(
        AddressFamily::NETLINK,
        kind,
        flags,
        Some(netlink::NETFILTER),
    )?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    send(&socket, &request(family), SendFlags::empty())?;
    let mut chains = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some(Message {
            kind,
            flags,
            body,
            next,
        }) = message(rest)
        {
            if flags & DUMP_INTERRUPTED != 0 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match kind {
                DONE => return Ok(chains),
                ERROR => return Err(refusal(body)),
                NEW_CHAIN => chains.extend(chain_of_nat(body)),
                _ => {}
            }
            rest = next;
        }
    }
}

fn request(family: Family) -> [u8; HEADER + GENERIC] {
    let mut message = [0; HEADER + GENERIC];
    let length = u32::try_from(message.len()).expect("a short message");
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&GET_CHAIN.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    message[HEADER] = match family {
        Family::V4 => 2,
        Family::V6 => 10,
    };
    message
}

/// The first of some messages.
struct Message<'a> {
    kind: u16,
    flags: u16,
    body: &'a [u8],
    /// The messages behind it.
    next: &'a [u8],
}

fn message(bytes: &[u8]) -> Option<Message<'_>> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let flags = u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some(Message {
        kind,
        flags,
        body,
        next,
    })
}

/// An error's number is negative.
fn refusal(body: &[u8]) -> io::Error {
    let code = body.get(..4).and_then(|code| code.try_into().ok());
    let code = code.map_or(0, i32::from_ne_bytes);
    io::Error::from_raw_os_error(code.saturating_neg())
}

fn is_absent(error: &io::Error) -> bool {
    let absent = [
        libc::EPROTONOSUPPORT,
        libc::EAFNOSUPPORT,
        libc::EOPNOTSUPP,
        libc::EINVAL,
        libc::ENOENT,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| absent.contains(&code))
}

/// The chain's name, if it is one of that table.
fn chain_of_nat(body: &[u8]) -> Option<String> {
    let (mut table, mut name) = (None, None);
    let mut rest = body.get(GENERIC..)?;
    while let Some((kind, value, next)) = attribute(rest) {
        match kind {
            CHAIN_TABLE => table = text(value),
            CHAIN_NAME => name = text(value),
            _ => {}
        }
        rest = next;
    }
    (table? == TABLE).then_some(name?.to_owned())
}

fn attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    let length = usize::from(length);
    // The two highest bits say what is in it.
    let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
    let value = bytes.get(4..length)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, value, rest))
}

fn text(value: &[u8]) -> Option<&str> {
    CStr::from_bytes_until_nul(value).ok()?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute_of(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message_of(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn chain(table: &str, name: &str) -> Vec<u8> {
        let mut body = vec![0; GENERIC];
        // The kernel puts a handle between them, and marks what is nested.
        body.extend(attribute_of(CHAIN_TABLE, format!("{table}\0").as_bytes()));
        body.extend(attribute_of(2 | 0x8000, &[0; 8]));
        body.extend(attribute_of(CHAIN_NAME, format!("{name}\0").as_bytes()));
        body
    }

    #[test]
    fn a_chain_of_table_nat_is_found_among_others() {
        let bytes = [
            message_of(NEW_CHAIN, &chain("filter", "TUNNEL-PORT")),
            message_of(NEW_CHAIN, &chain("nat", "TUNNEL-PORT-10250")),
            message_of(DONE, &[0; 4]),
        ]
        .concat();
        let (mut kinds, mut chains, mut rest) = (Vec::new(), Vec::new(), &bytes[..]);
        while let Some(Message {
            kind, body, next, ..
        }) = message(rest)
        {
            kinds.push(kind);
            chains.extend(chain_of_nat(body));
            rest = next;
        }
        assert_eq!(kinds, [NEW_CHAIN, NEW_CHAIN, DONE]);
        assert_eq!(chains, ["TUNNEL-PORT-10250"]);
    }

    #[test]
    fn a_message_that_is_cut_off_or_says_a_wrong_length_is_the_end() {
        let whole = message_of(NEW_CHAIN, &chain("nat", "TUNNEL-PORT"));
        for length in 0..whole.len() {
            assert!(message(&whole[..length]).is_none(), "{length} bytes");
        }
        for said in [0, 1, 15, u32::MAX] {
            let mut wrong = whole.clone();
            wrong[..4].copy_from_slice(&said.to_ne_bytes());
            assert!(message(&wrong).is_none(), "{said}");
        }
        let body = chain("nat", "TUNNEL-PORT");
        for length in 0..body.len() {
            assert_ne!(
                chain_of_nat(&body[..length]).as_deref(),
                Some("TUNNEL-PORT")
            );
        }
    }

    #[test]
    fn what_the_kernel_refuses_is_told_by_its_number() {
        let refused = refusal(&(-libc::EPERM).to_ne_bytes());
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        assert!(is_absent(&refusal(&(-libc::EAFNOSUPPORT).to_ne_bytes())));
        assert!(!is_absent(&refused));
    }
}
