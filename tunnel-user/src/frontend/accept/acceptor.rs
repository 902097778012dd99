//! Takes clients from the listeners, and resets those for whom there is no descriptor.
//!
//! One descriptor is kept in reserve: given up for a moment, it lets a client be accepted and reset
//! at once, who would otherwise wait in the kernel's queue until a time-out of its own.

use std::{io, net::SocketAddr, os::fd::OwnedFd, time::Duration};

use futures_util::FutureExt as _;
use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
    process::{Resource, getrlimit},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    health::{AcceptHealth, Change},
    listeners::{Listeners, Listens},
};
use crate::{
    observability::{metrics::Frontend, readiness::Condition},
    tunnel::reset,
};

/// The pause after an accept that failed with nobody turned away.
const PAUSE: Duration = Duration::from_millis(100);

/// Who hears whether clients can be accepted.
pub struct Accepting {
    /// For people and probes.
    pub condition: Condition,
    /// For whoever judges the redirect by what arrives.
    pub works: watch::Sender<bool>,
}

/// The accepting half of a frontend.
pub(in crate::frontend) struct Acceptor<K, S> {
    frontend: Frontend,
    listeners: Listeners<K, S>,
    reserve: Option<OwnedFd>,
    health: AcceptHealth,
    last_error: Option<io::Error>,
    told: Option<Accepting>,
}

impl<K: Copy + Ord, S: Listens> Acceptor<K, S> {
    /// Whoever is `told` hears whether clients can be accepted.
    pub(in crate::frontend) fn new(
        frontend: Frontend,
        listeners: Listeners<K, S>,
        told: Option<Accepting>,
    ) -> Self {
        if let Some(told) = &told {
            told.condition.ready();
        }
        Self {
            frontend,
            listeners,
            reserve: spare().ok(),
            health: AcceptHealth::default(),
            last_error: None,
            told,
        }
    }

    /// The next client. Cancelling it loses nobody.
    pub(super) async fn accept(&mut self) -> (K, TcpStream, SocketAddr) {
        loop {
            let error = match self.listeners.accept().await {
                Ok(accepted) => {
                    self.health.worked(Instant::now());
                    self.tell_others();
                    return accepted;
                }
                // Of one client alone, who has gone.
                Err(error) if is_of_the_client(&error) => continue,
                Err(error) => error,
            };
            tracing::debug!(%error, "cannot accept a client");
            self.health.failed(Instant::now());
            self.tell_others();
            let turned_away = is_out_of_descriptors(&error) && self.turn_away();
            self.last_error = Some(error);
            if !turned_away {
                sleep(PAUSE).await;
            }
        }
    }

    /// Looks after the sockets and the reserve, every second: whether clients may be sent here.
    pub(super) fn look_after(&mut self) -> bool {
        self.listeners.let_go(Instant::now());
        if !self.health.is_well() {
            let has_room = self.refill() && spare().is_ok();
            match self.health.check(Instant::now(), has_room) {
                Some(Change::Stopped) => self.stopped(),
                Some(Change::Resumed) => self.resumed(),
                None => {}
            }
            self.tell_others();
        }
        self.health.may_beat()
    }

    /// The listeners, for what is queued at the end.
    pub(super) fn into_listeners(self) -> impl Iterator<Item = (K, TcpListener)> {
        self.listeners.into_all()
    }

    /// Resets one client. False if nobody waits, or somebody else took the descriptor.
    fn turn_away(&mut self) -> bool {
        if self.reserve.take().is_none() {
            self.refill();
            return false;
        }
        let accepted = self.listeners.accept().now_or_never();
        let turned_away = accepted
            .and_then(Result::ok)
            .map(|(_, client, _)| reset(&client));
        self.refill();
        turned_away.is_some()
    }

    fn refill(&mut self) -> bool {
        if self.reserve.is_none() {
            self.reserve = spare().ok();
        }
        self.reserve.is_some()
    }

    fn stopped(&self) {
        let (frontend, reason) = (self.frontend.as_str(), cause(self.last_error.as_ref()));
        let Some(told) = &self.told else {
            tracing::warn!(frontend, reason, "clients are turned away");
            return;
        };
        tracing::warn!(frontend, reason, "connects are no longer redirected");
        told.condition.not_ready(reason);
    }

    fn resumed(&self) {
        let frontend = self.frontend.as_str();
        let Some(told) = &self.told else {
            tracing::info!(frontend, "clients can be accepted again");
            return;
        };
        tracing::info!(
            frontend,
            "clients can be accepted again: connects are redirected"
        );
        told.condition.ready();
    }

    /// From the first failure on: a probe that this loop resets is not lost on its way.
    fn tell_others(&self) {
        let works = self.health.is_well();
        if let Some(told) = &self.told {
            let is_news = |told: &mut bool| std::mem::replace(told, works) != works;
            told.works.send_if_modified(is_news);
        }
    }
}

/// A descriptor with a file behind it, for either may be short.
fn spare() -> rustix::io::Result<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC)
}

fn errno(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(errno(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Errors that were pending on the accepted socket: accept(2) has the list.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        errno(error),
        Some(
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NONET
                | Errno::OPNOTSUPP
        )
    )
}

/// What keeps clients out, and the way out.
fn cause(error: Option<&io::Error>) -> String {
    let Some(error) = error else {
        return "cannot accept clients".to_owned();
    };
    match errno(error) {
        Some(Errno::MFILE) => {
            let limit = getrlimit(Resource::Nofile).current;
            let limit = limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
            format!(
                "cannot accept clients: too many open files (limit {limit}): raise the limit \
                 (LimitNOFILE= of the unit, ulimit -n), or see in /proc/{}/fd what holds them",
                std::process::id()
            )
        }
        Some(Errno::NFILE) => "cannot accept clients: too many open files in the whole system: \
                               raise fs.file-max, or find the process that holds them"
            .to_owned(),
        _ => format!("cannot accept clients: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_name_the_way_out() {
        let of = |errno: Errno| cause(Some(&errno.into()));
        assert!(
            of(Errno::MFILE).contains("LimitNOFILE"),
            "{}",
            of(Errno::MFILE)
        );
        assert!(of(Errno::NFILE).contains("fs.file-max"));
        assert!(of(Errno::NOMEM).contains("memory"), "{}", of(Errno::NOMEM));
    }

    #[test]
    fn an_error_of_one_client_is_not_the_servers() {
        assert!(is_of_the_client(&Errno::CONNABORTED.into()));
        assert!(!is_of_the_client(&Errno::MFILE.into()));
        assert!(!is_of_the_client(&Errno::NOBUFS.into()));
    }
}
