//! How much the other end of a connection may send before this one has taken it: a few times what the socket takes in a
//! round trip.
//!
//! ```text
//!  |-- first --|------------ growth, drawn from memory ------------|
//!  |-- first --|-- what it is larger than that --|------ debt -----|
//!              told again as it is taken          not told again, paid back as it is taken
//! ```
//! What the reader takes is what its kernel has acknowledged: the socket's own buffer, megabytes perhaps, also fills
//! for one that has stopped. The window grows as long as it is what holds the reader up: then a round trip takes most
//! of it, or somewhat less where the present one is longer than the shortest, which is what is reckoned with. What the
//! other end was told HTTP/2 cannot take back, so a window that shrinks leaves a debt. Of a connection that rests
//! nothing stays drawn: what its other end may still send is drawn if it comes and is not taken.

use std::time::Duration;

use tokio::time::Instant;

use crate::tunnel::memory::Growth;

/// A round trip next door is shorter than what it costs to look.
const SHORTEST_TURN: Duration = Duration::from_millis(1);
/// The window shrinks to what was taken in the best round trip of such a period, and to the first one when little was
/// taken in all of it.
pub(super) const PERIOD: Duration = Duration::from_secs(10);
/// Whoever takes less has no use for a larger window.
const MUCH: u64 = 64 * 1024;

/// The window of one connection: a plain state machine.
#[derive(Debug)]
pub(super) struct Window {
    growth: Growth,
    /// The largest that it may be.
    most: u64,
    /// Of the growth, what is not told again.
    debt: u64,
    turn: Option<Turn>,
    /// Bytes that the socket had and its peer had not acknowledged, when the turn began.
    unacknowledged: u64,
    /// Bytes that its peer has acknowledged in all turns.
    acknowledged: u64,
    /// Bytes of the best turn in this period.
    best: u64,
    period: Option<Instant>,
    /// Bytes since somebody asked whether it rests.
    taken: u64,
}

/// About one round trip.
#[derive(Clone, Copy, Debug)]
struct Turn {
    began: Instant,
    taken: u64,
}

/// What follows from what was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Bytes by which the window becomes larger.
    pub(super) larger: isize,
    /// The round trip should be known better.
    pub(super) measure: bool,
}

impl Window {
    pub(super) fn new(growth: Growth, most: u32) -> Self {
        Self {
            growth,
            most: most.into(),
            debt: 0,
            turn: None,
            unacknowledged: 0,
            acknowledged: 0,
            best: 0,
            period: None,
            taken: 0,
        }
    }

    /// What is drawn for it beyond the first window.
    pub(super) fn growth(&self) -> u64 {
        self.growth.bytes()
    }

    /// The socket has taken so many bytes, and tells how many its peer has not acknowledged. `first` is the first
    /// window, `None` while memory is scarce.
    pub(super) fn took(
        &mut self,
        bytes: usize,
        unacknowledged: impl FnOnce() -> u64,
        now: Instant,
        round_trip: Option<Duration>,
        first: Option<u64>,
    ) -> Change {
        let bytes = bytes as u64;
        let change = self.change(bytes, unacknowledged, now, round_trip, first);
        self.pay(bytes);
        self.taken += bytes;
        change
    }

    fn change(
        &mut self,
        bytes: u64,
        unacknowledged: impl FnOnce() -> u64,
        now: Instant,
        round_trip: Option<Duration>,
        first: Option<u64>,
    ) -> Change {
        let turn = self.turn.get_or_insert(Turn {
            began: now,
            taken: 0,
        });
        turn.taken += bytes;
        let turn = *turn;
        let Some(first) = first else {
            return self.become_larger_by(0);
        };
        let Some(round_trip) = round_trip else {
            return Change {
                larger: 0,
                measure: turn.taken >= MUCH,
            };
        };
        let elapsed = now.saturating_duration_since(turn.began);
        if elapsed < round_trip.max(SHORTEST_TURN) {
            return Change::default();
        }
        let before = std::mem::replace(&mut self.unacknowledged, unacknowledged());
        let acknowledged = (before + turn.taken).saturating_sub(self.unacknowledged);
        self.acknowledged += acknowledged;
        self.turn_over(part(acknowledged, round_trip, elapsed), now, first)
    }

    /// So much of what has come is beyond what is drawn: the other end was told of more, once.
    pub(super) fn has_come(&mut self, beyond: u64) {
        let drawn = self.growth.grow(beyond);
        self.debt += drawn;
    }

    /// Gives back all that is drawn, if little was taken since the last time; to be asked once a [`PERIOD`], and when
    /// nothing waits to be taken.
    pub(super) fn rest(&mut self) -> Change {
        if std::mem::take(&mut self.taken) >= MUCH {
            return Change::default();
        }
        let change = self.become_larger_by(0);
        self.debt = 0;
        self.growth.shrink(u64::MAX);
        change
    }

    /// The other end has sent its last byte, and so many beyond the first window wait to be taken.
    pub(super) fn end(&mut self, beyond: u64) {
        self.most = 0;
        self.growth
            .shrink(self.growth.bytes().saturating_sub(beyond));
        self.debt = self.growth.bytes();
    }

    fn turn_over(&mut self, taken: u64, now: Instant, first: u64) -> Change {
        self.turn = Some(Turn {
            began: now,
            taken: 0,
        });
        self.best = self.best.max(taken);
        let period = *self.period.get_or_insert(now);
        let size = first + self.larger();
        let mut change = Change::default();
        let is_over = now.saturating_duration_since(period) >= PERIOD;
        let (held_up, slow) = (4 * taken > size, 8 * self.best < size);
        // Less than that fits into its kernel's buffer, whether it reads or not.
        let reads = self.acknowledged >= first;
        if reads && held_up && size < self.most {
            let wanted = (6 * taken).min(self.most);
            change = self.become_larger_by(wanted.saturating_sub(first));
        } else if is_over && slow {
            change = self.become_larger_by((4 * self.best).saturating_sub(first));
        }
        if is_over {
            (self.period, self.best) = (Some(now), taken);
        }
        Change {
            measure: taken >= MUCH,
            ..change
        }
    }

    /// What it is larger than the first window, as the other end is told.
    fn larger(&self) -> u64 {
        self.growth.bytes() - self.debt
    }

    fn become_larger_by(&mut self, wanted: u64) -> Change {
        let now = self.larger();
        let larger = if wanted > now {
            let of_debt = self.debt.min(wanted - now);
            self.debt -= of_debt;
            let drawn = self.growth.grow(wanted - now - of_debt);
            (of_debt + drawn).cast_signed()
        } else {
            self.debt += now - wanted;
            -(now - wanted).cast_signed()
        };
        Change {
            larger: larger.try_into().expect("windows are small"),
            measure: false,
        }
    }

    fn pay(&mut self, bytes: u64) {
        let paid = self.debt.min(bytes);
        self.debt -= paid;
        self.growth.shrink(paid);
    }
}

/// What was taken in `time` of all that was taken in `elapsed`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a size to aim at"
)]
fn part(taken: u64, time: Duration, elapsed: Duration) -> u64 {
    (taken as f64 * (time.as_secs_f64() / elapsed.as_secs_f64())) as u64
}

#[cfg(test)]
mod tests;
