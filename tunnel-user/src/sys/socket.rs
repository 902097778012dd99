//! What rustix and socket2 do not do: options of sockets that they do not know, and receiving into a buffer of Tokio's.
#![expect(
    unsafe_code,
    reason = "system calls whose pointers the compiler cannot check"
)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
    time::Duration,
};

use socket2::SockRef;
use tokio::io::ReadBuf;

/// `include/uapi/asm-generic/socket.h`
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The places of what we read in [`tcp_info`], whose layout is that of the kernel's interface and only ever grows.
///
/// [`tcp_info`]: https://github.com/torvalds/linux/blob/v5.10/include/uapi/linux/tcp.h#L214
mod tcp_info {
    pub(super) const SIZE: usize = 228;
    pub(super) const RETRANSMITS: usize = 2;
    pub(super) const SND_MSS: usize = 16;
    pub(super) const UNACKED: usize = 24;
    pub(super) const LAST_ACK_RECV: usize = 56;
    pub(super) const BYTES_ACKED: usize = 120;
    pub(super) const BYTES_RECEIVED: usize = 128;
    pub(super) const SEGS_IN: usize = 140;
    pub(super) const NOTSENT_BYTES: usize = 144;
    pub(super) const DELIVERED: usize = 192;
    pub(super) const BYTES_SENT: usize = 200;
    pub(super) const BYTES_RETRANS: usize = 208;
    pub(super) const RCV_OOOPACK: usize = 224;
}

/// What has passed on a TCP connection, as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TcpCounts {
    /// Segments that came, of whatever kind: also those that the kernel only answers, or drops. Wraps.
    pub(crate) segments: u32,
    /// Those with data that it keeps until others come, which are missing before them. Wraps.
    pub(crate) out_of_order: u32,
    /// Bytes that came and can be read, or have been.
    pub(crate) received: u64,
    /// Bytes that the peer's kernel has acknowledged since the connection was made.
    pub(crate) acknowledged: u64,
    /// Segments that it has got, also those before which others are missing. Wraps.
    pub(crate) delivered: u32,
    /// Bytes that it has not acknowledged, sent or not.
    pub(crate) pending: u64,
    /// How often in a row the first of those that were sent was due to be sent again, each time after twice the wait.
    pub(crate) repeats: u8,
    /// Bytes of data in the largest segment that is sent.
    pub(crate) largest: u32,
    /// When the peer last acknowledged something, perhaps what it had before.
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
    let u64_at = |place: usize| {
        let bytes = info[place..place + 8].try_into().expect("eight bytes");
        u64::from_ne_bytes(bytes)
    };
    let acknowledged = u64_at(tcp_info::BYTES_ACKED);
    let sent = u64_at(tcp_info::BYTES_SENT).saturating_sub(u64_at(tcp_info::BYTES_RETRANS));
    let in_flight = match u32_at(tcp_info::UNACKED) {
        0 => 0,
        // The first acknowledgement is one of the SYN as well.
        _ => sent.saturating_sub(acknowledged).max(1),
    };
    Ok(TcpCounts {
        segments: u32_at(tcp_info::SEGS_IN),
        out_of_order: u32_at(tcp_info::RCV_OOOPACK),
        received: u64_at(tcp_info::BYTES_RECEIVED),
        acknowledged,
        delivered: u32_at(tcp_info::DELIVERED),
        pending: in_flight + u64::from(u32_at(tcp_info::NOTSENT_BYTES)),
        repeats: info[tcp_info::RETRANSMITS],
        largest: u32_at(tcp_info::SND_MSS),
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

/// Receives into what is left of a buffer, which need not have been written before, and says how many bytes.
pub(crate) fn receive(socket: &SockRef<'_>, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
    // SAFETY: socket2 promises to write no uninitialised bytes there.
    let unfilled = unsafe { buf.unfilled_mut() };
    let received = socket.recv(unfilled)?;
    // SAFETY: that many have just been written at its beginning.
    unsafe { buf.assume_init(received) };
    buf.advance(received);
    Ok(received)
}

/// Reads an option of a socket; what the kernel has none of, as it is older, is zero.
fn option<const SIZE: usize>(
    socket: impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<[u8; SIZE]> {
    let mut value = [0; SIZE];
    read_option(socket, level, name, &mut value)?;
    Ok(value)
}

/// Reads an option into a buffer, whose content is part of the question with some.
pub(crate) fn read_option(
    socket: impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &mut [u8],
) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most that many bytes, into the buffer.
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
        0 => Ok(()),
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
        assert!(
            before.pending == 0 && before.acknowledged >= 5,
            "{before:?}"
        );

        sender.set_nonblocking(true).unwrap();
        while sender.write(&[0; 4096]).is_ok() {}
        let after = tcp_counts(&sender).unwrap();
        assert!(after.pending > 1 << 16, "{after:?}");
        assert!(after.acknowledged > before.acknowledged, "{after:?}");
        assert_eq!(after.repeats, 0, "{after:?}");
        assert!(
            after.largest > 1000 && after.segments > before.segments,
            "{after:?}"
        );

        let counts = tcp_counts(&reader).unwrap();
        assert!(counts.received >= after.acknowledged - 1, "{counts:?}");
    }
}
