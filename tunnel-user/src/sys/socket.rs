//! Socket options that neither rustix nor socket2 knows.
#![expect(
    unsafe_code,
    reason = "system calls whose pointers the compiler cannot check"
)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
    time::Duration,
};

/// `include/uapi/asm-generic/socket.h`
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The places of what we read in [`tcp_info`], whose layout is that of the kernel's interface and only ever grows.
///
/// [`tcp_info`]: https://github.com/torvalds/linux/blob/v5.10/include/uapi/linux/tcp.h#L214
mod tcp_info {
    pub(super) const SIZE: usize = 156;
    pub(super) const UNACKED: usize = 24;
    pub(super) const LAST_ACK_RECV: usize = 56;
    pub(super) const BYTES_ACKED: usize = 120;
    pub(super) const NOTSENT_BYTES: usize = 144;
    pub(super) const DATA_SEGS_IN: usize = 152;
}

/// What has passed on a TCP connection, as the kernel counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpCounts {
    /// Segments with data that came, also those before which others are missing. Wraps.
    pub(crate) data_segments: u32,
    /// Bytes that the peer's kernel has acknowledged since the connection was made.
    pub(crate) acknowledged: u64,
    /// Whether it has not acknowledged all.
    pub(crate) is_pending: bool,
    /// When the last segment came, with data or without.
    pub(crate) since_last: Duration,
}

/// Asks the kernel (`TCP_INFO`).
///
/// # Errors
/// When the socket is none of TCP.
pub(crate) fn tcp_counts(socket: impl AsFd) -> io::Result<TcpCounts> {
    let info: [u8; tcp_info::SIZE] = option(socket, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    let u32_at = |place: usize| {
        let bytes = info[place..place + 4].try_into().expect("four bytes");
        u32::from_ne_bytes(bytes)
    };
    let acknowledged = info[tcp_info::BYTES_ACKED..][..8].try_into();
    Ok(TcpCounts {
        data_segments: u32_at(tcp_info::DATA_SEGS_IN),
        acknowledged: u64::from_ne_bytes(acknowledged.expect("eight bytes")),
        is_pending: u32_at(tcp_info::UNACKED) > 0 || u32_at(tcp_info::NOTSENT_BYTES) > 0,
        since_last: Duration::from_millis(u32_at(tcp_info::LAST_ACK_RECV).into()),
    })
}

/// The network namespace of a socket, as the programs name it (`SO_NETNS_COOKIE`); `None` before Linux
/// 5.14.
pub(crate) fn netns_cookie(socket: impl AsFd) -> io::Result<Option<u64>> {
    let cookie = option(socket, libc::SOL_SOCKET, SO_NETNS_COOKIE);
    match cookie {
        Ok(cookie) => Ok(Some(u64::from_ne_bytes(cookie))),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads an option of a socket; what the kernel has none of, as it is older, is zero.
fn option<const SIZE: usize>(
    socket: impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<[u8; SIZE]> {
    let mut value = [0; SIZE];
    let mut length = libc::socklen_t::try_from(SIZE).expect("a small number");
    // SAFETY: the kernel writes at most that many bytes, into the array.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match result {
        0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn what_a_peer_does_not_read_is_pending_once_its_buffers_are_full() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut reader, _) = listener.accept().unwrap();
        sender.write_all(b"hello").unwrap();
        reader.read_exact(&mut [0; 5]).unwrap();
        let before = tcp_counts(&sender).unwrap();
        assert!(!before.is_pending && before.acknowledged >= 5, "{before:?}");

        sender.set_nonblocking(true).unwrap();
        while sender.write(&[0; 4096]).is_ok() {}
        let after = tcp_counts(&sender).unwrap();
        assert!(after.is_pending, "{after:?}");
        assert!(after.acknowledged > before.acknowledged, "{after:?}");
    }
}
