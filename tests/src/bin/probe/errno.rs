//! Names of the errors that a connection can end with: tests compare names, not numbers.

use std::io;

use rustix::io::Errno;

const NAMES: [(Errno, &str); 18] = [
    (Errno::ACCESS, "EACCES"),
    (Errno::ADDRINUSE, "EADDRINUSE"),
    (Errno::ADDRNOTAVAIL, "EADDRNOTAVAIL"),
    (Errno::AGAIN, "EAGAIN"),
    (Errno::CONNABORTED, "ECONNABORTED"),
    (Errno::CONNREFUSED, "ECONNREFUSED"),
    (Errno::CONNRESET, "ECONNRESET"),
    (Errno::HOSTUNREACH, "EHOSTUNREACH"),
    (Errno::INPROGRESS, "EINPROGRESS"),
    (Errno::INVAL, "EINVAL"),
    (Errno::ISCONN, "EISCONN"),
    (Errno::MFILE, "EMFILE"),
    (Errno::NETDOWN, "ENETDOWN"),
    (Errno::NETUNREACH, "ENETUNREACH"),
    (Errno::NOTCONN, "ENOTCONN"),
    (Errno::PERM, "EPERM"),
    (Errno::PIPE, "EPIPE"),
    (Errno::TIMEDOUT, "ETIMEDOUT"),
];

pub(crate) fn name(error: &io::Error) -> String {
    if let Some(errno) = Errno::from_io_error(error) {
        let known = NAMES.iter().find(|(known, _)| *known == errno);
        return known.map_or_else(
            || format!("errno {}", errno.raw_os_error()),
            |(_, name)| (*name).into(),
        );
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "EOF".into(),
        io::ErrorKind::TimedOut => "TIMEOUT".into(),
        kind => kind.to_string(),
    }
}
