//! Ending processes by pid, without polling: a pidfd becomes readable when its process ends.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Sends SIGKILL to each and waits until all have ended, at most `patience`. The own process is left out.
pub(crate) fn kill_all(pids: impl IntoIterator<Item = u32>, patience: Duration) {
    let deadline = Instant::now() + patience;
    let own = std::process::id();
    let handles: Vec<OwnedFd> = pids
        .into_iter()
        .filter(|pid| *pid != own)
        .filter_map(|pid| handle(pid).ok())
        .collect();
    for process in &handles {
        // It may have ended by itself in between, which is what is wanted.
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
    for process in &handles {
        wait(process, deadline.saturating_duration_since(Instant::now()));
    }
}

/// A handle that keeps meaning this very process, even when the pid is given to another one.
pub(crate) fn handle(pid: u32) -> rustix::io::Result<OwnedFd> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(Errno::SRCH)?;
    pidfd_open(pid, PidfdFlags::empty())
}

/// True when the process has ended within `patience`.
pub(crate) fn wait(process: &OwnedFd, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("a patience of less than an age");
        match poll(
            &mut [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)],
            Some(&timeout),
        ) {
            Err(Errno::INTR) => {}
            ready => return ready.is_ok_and(|count| count > 0),
        }
    }
}

/// True while a process of that number exists.
pub(crate) fn exists(pid: u32) -> bool {
    handle(pid).is_ok()
}
