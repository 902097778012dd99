//! What an agent's answer to a dial says.
//!
//! On the wire it is a text. Agents, konnectivity's included, word it as Go's `net.Dial` does, and
//! `crate::tunnel::agent` takes the words from here.

use rustix::io::Errno;

use crate::observability::metrics::DialFailure::{
    self, Denied, Exhausted, Other, Protocol, Refused, SessionFull, TimedOut, Unreachable,
    Unresolved,
};

pub(super) const NOT_A_TARGET: &str = "is not a target";
pub(super) const NO_SUCH_HOST: &str = "no such host";
pub(super) const NOT_ALLOWED: &str = "not allowed by the agent's policy";
pub(super) const SESSION_FULL: &str = "connections for this server, its limit";
pub(super) const OUT_OF_MEMORY: &str = "all that its memory limit allows";
pub(super) const IO_TIMEOUT: &str = "i/o timeout";

/// `connect(2)`'s errors in Go's words.
pub(super) const CONNECT_ERRORS: [(Errno, &str, DialFailure); 9] = [
    (Errno::CONNREFUSED, "connection refused", Refused),
    (Errno::NETUNREACH, "network is unreachable", Unreachable),
    (Errno::HOSTUNREACH, "no route to host", Unreachable),
    (Errno::TIMEDOUT, "connection timed out", TimedOut),
    (Errno::MFILE, "too many open files", Exhausted),
    (Errno::NFILE, "too many open files in system", Exhausted),
    (Errno::NOMEM, "cannot allocate memory", Exhausted),
    (Errno::NOBUFS, "no buffer space available", Exhausted),
    (
        Errno::ADDRNOTAVAIL,
        "cannot assign requested address",
        Exhausted,
    ),
];

/// Why the agent could not dial, as metrics count it.
pub fn dial_failure(answer: &str) -> DialFailure {
    let own = [
        (NOT_A_TARGET, Protocol),
        (NO_SUCH_HOST, Unresolved),
        (NOT_ALLOWED, Denied),
        (IO_TIMEOUT, TimedOut),
        (SESSION_FULL, SessionFull),
        (OUT_OF_MEMORY, Exhausted),
    ];
    let of_connect = CONNECT_ERRORS.map(|(_, words, failure)| (words, failure));
    let mut known = own.iter().chain(&of_connect);
    let found = known.find(|(words, _)| answer.contains(words));
    found.map_or(Other, |(_, failure)| *failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understands_konnectivitys_agents() {
        for (answer, failure) in [
            (
                "dial tcp 10.0.0.1:10250: connect: connection refused",
                Refused,
            ),
            ("dial tcp 10.0.0.1:10250: i/o timeout", TimedOut),
            (
                "dial tcp: lookup edge-1 on 10.96.0.10:53: no such host",
                Unresolved,
            ),
            (
                "dial tcp 10.0.0.1:10250: connect: no route to host",
                Unreachable,
            ),
            (
                "dial tcp [fd00::1]:10250: socket: too many open files",
                Exhausted,
            ),
            ("something new", Other),
        ] {
            assert_eq!(dial_failure(answer), failure, "{answer}");
        }
    }
}
