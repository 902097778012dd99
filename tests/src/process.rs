//! Ending processes by pid, without polling: a pidfd becomes readable when its process ends.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, getpid, pidfd_open, pidfd_send_signal,
    set_child_subreaper, wait as wait_for_child,
};

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
pub fn exists(pid: u32) -> bool {
    handle(pid).is_ok()
}

/// When a process was started, in ticks since boot, see `proc_pid_stat(5)`: with the pid it means one process only.
pub(crate) fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold blanks and parentheses; after it comes field 3.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(22 - 3)?.parse().ok()
}

/// What daemons below this process leave behind becomes its child, for [`reap_all`]: not every machine has an init
/// that waits for orphans.
pub(crate) fn adopt_orphans() -> rustix::io::Result<()> {
    set_child_subreaper(Some(getpid()))
}

/// Takes note of every child that has ended. Only for a process that waits for no child anywhere else any more.
pub(crate) fn reap_all() {
    while let Ok(Some(_)) = wait_for_child(WaitOptions::NOHANG) {}
}
