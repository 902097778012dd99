//! How often to ask for servers that are known to exist, but not where: one address may lead to
//! several.
//!
//! An answer is a matter of luck, since a load balancer chooses who gives it. So attempts come in
//! quick succession at first, enough of them to meet every server with a good chance, and then
//! ever more seldom: a server that no address leads to would cost the others a handshake each time.

use std::time::{Duration, Instant};

use crate::backoff::{Backoff, jittered};

/// The longest pause between two quick attempts.
const QUICK: Duration = Duration::from_millis(500);
/// Quick attempts for each server there is: of three servers the third is then met but once in
/// forty.
const QUICK_PER_SERVER: u32 = 3;
/// The longest pause of a search that goes on and on.
const CAP: Duration = Duration::from_secs(20);

/// When the next attempt is due.
#[derive(Debug)]
pub(super) struct Discovery {
    quick: u32,
    backoff: Backoff,
    due: Instant,
}

impl Discovery {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            quick: 0,
            backoff: Backoff::up_to(CAP),
            due: now,
        }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// There is a server to be found now: the first attempt is made at once, the following ones
    /// quickly.
    pub(super) fn urge(&mut self, servers: u32, now: Instant) {
        self.quick = servers.saturating_mul(QUICK_PER_SERVER);
        self.backoff.reset();
        self.due = now;
    }

    /// The same, told to all agents at a time: they do not come all at once.
    pub(super) fn urge_all(&mut self, servers: u32, now: Instant) {
        self.urge(servers, now);
        self.due = now + jittered(QUICK);
    }

    /// A server was lost whose session had lasted this long. It may be back soon, and if not, it
    /// will take a while.
    pub(super) fn lost(&mut self, lasted: Duration, now: Instant) {
        self.quick = 0;
        self.due = now + self.backoff.after(lasted);
    }

    /// An attempt has found nobody new.
    pub(super) fn in_vain(&mut self, now: Instant) {
        let pause = match self.quick.checked_sub(1) {
            Some(left) => {
                self.quick = left;
                jittered(QUICK)
            }
            None => self.backoff.after(Duration::ZERO),
        };
        self.due = now + pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_quick_at_first_and_seldom_later() {
        let mut now = Instant::now();
        let began = now;
        let mut search = Discovery::new(now);
        search.urge(3, now);
        assert_eq!(search.due(), now);
        for _ in 0..9 {
            search.in_vain(now);
            assert!(search.due() <= now + QUICK);
            now = search.due();
        }
        assert!(now >= began + 9 * QUICK / 2);
        for _ in 0..9 {
            search.in_vain(now);
        }
        assert!(search.due() >= now + CAP / 2 && search.due() <= now + CAP);
        search.urge_all(3, now);
        assert!(search.due() > now && search.due() <= now + QUICK);
    }

    #[test]
    fn a_server_that_went_away_is_asked_for_once_soon() {
        let now = Instant::now();
        let mut search = Discovery::new(now);
        search.urge(5, now);
        search.lost(Duration::from_mins(1), now);
        assert!(search.due() <= now + QUICK);
        search.in_vain(now);
        search.in_vain(now);
        assert!(search.due() >= now + QUICK);
    }
}
