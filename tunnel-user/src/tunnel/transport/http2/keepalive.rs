//! Notices a peer that has gone without a word: a black-holed link, a machine that lost power.
//!
//! What counts is any byte heard, not the answer to our ping: on a slow link full of data that answer may queue behind
//! seconds of it while the peer is perfectly alive. On a link that is full of *ours* the question itself queues, and
//! where a packet was lost nothing can be read until it has come again: so what the [kernel sees](super::segments)
//! counts as well.
//!
//! Both ends watch. Were they to ask at the same time, each question would be asked twice, and a server has
//! thousands of peers: the agent asks first, and its question is the sign of life that the server waits for.

use std::{
    future::{pending, poll_fn},
    time::Duration,
};

use h2::{Ping, PingPong};
use tokio::time::{Instant, sleep};

use super::{Activity, RoundTrip, activity::Silence};
use crate::tunnel::Settings;

/// How often a peer that owes an answer is looked at: what waits to be sent must be seen to shrink.
const LOOK: Duration = Duration::from_secs(1);

/// A peer whose kernel answers, but which says nothing, hangs; or it waits for its turn to send again what a full queue
/// on the way has dropped, which on a slow link takes longer than silence on a dead one may last.
const STUCK: u32 = 6;

/// How long silence may last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Then the peer is asked.
    ask: Duration,
    /// Then it is gone, unless its kernel answers: it has [`STUCK`] times as long to say something.
    end: Duration,
}

/// What to do about a peer that has been silent for some time.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It was heard recently: look again after this long.
    Fine(Duration),
    /// Ask it whether it is there.
    Ask,
    /// It had its chance.
    Gone(Lost),
}

/// Why there is nobody to talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Nothing came from the peer for too long.
    Silent,
    /// Large segments do not arrive there, while small ones do.
    LargeSegments,
}

impl Lost {
    /// As the log has it; `silent` says it of the peer.
    pub(crate) fn as_str(self, silent: &'static str) -> &'static str {
        match self {
            Self::Silent => silent,
            Self::LargeSegments => "packets of full size seem to be lost",
        }
    }
}

impl Patience {
    /// Of an agent.
    pub(crate) fn of_agent(settings: &Settings) -> Self {
        Self {
            ask: settings.keepalive_interval,
            end: settings.keepalive_interval + settings.keepalive_timeout,
        }
    }

    /// Of a server: the agent's question may take a moment to come.
    pub(crate) fn of_server(settings: &Settings) -> Self {
        Self {
            ask: settings.keepalive_interval + settings.keepalive_timeout / 4,
            ..Self::of_agent(settings)
        }
    }

    fn judge(self, silence: Silence) -> Verdict {
        let Silence {
            of_life, of_path, ..
        } = silence;
        if of_path >= self.end || of_life >= self.end * STUCK {
            return Verdict::Gone(Lost::Silent);
        }
        if silence.loses_large {
            return Verdict::Gone(Lost::LargeSegments);
        }
        match self.ask.checked_sub(of_life) {
            Some(left) if !left.is_zero() => Verdict::Fine(left),
            Some(_) | None => Verdict::Ask,
        }
    }

    /// Whether it was asked and has not answered, while segments came that say nothing.
    pub(super) fn answers_by_kernel_alone(self, silence: Silence) -> bool {
        silence.of_life > self.ask && silence.of_path + LOOK < silence.of_life
    }
}

/// Returns once nothing has come for `keepalive_interval + keepalive_timeout`, the peer having been asked in between;
/// or for [`STUCK`] times as long nothing that shows that more than its kernel is there; or as soon as large segments
/// are seen to be lost. What answers take is noted as the round trip, and asked for when somebody wants that.
pub(crate) async fn until_silent(
    ping_pong: PingPong,
    activity: &mut Activity,
    patience: Patience,
    round_trip: &RoundTrip,
) -> Lost {
    let answer_time = patience.end.saturating_sub(patience.ask);
    let mut question = Question::new(ping_pong);
    loop {
        let look_again = match patience.judge(activity.silence()) {
            Verdict::Fine(look_again) => look_again,
            Verdict::Ask => {
                question.ask();
                answer_time.min(LOOK)
            }
            Verdict::Gone(lost) => {
                activity.give_up();
                return lost;
            }
        };
        tokio::select! {
            () = sleep(look_again) => {}
            () = round_trip.wanted() => question.ask(),
            took = question.answered() => round_trip.note(took),
        }
    }
}

/// A ping, of which HTTP/2 as we have it knows one at a time: the next may be sent once somebody has taken the answer
/// to the one before, however late that comes.
struct Question {
    ping_pong: PingPong,
    asked: Option<Instant>,
}

impl Question {
    fn new(ping_pong: PingPong) -> Self {
        Self {
            ping_pong,
            asked: None,
        }
    }

    /// Asks, unless an answer is still to come. Where that fails the session is about to end.
    fn ask(&mut self) {
        if self.asked.is_none() && self.ping_pong.send_ping(Ping::opaque()).is_ok() {
            self.asked = Some(Instant::now());
        }
    }

    /// Waits for the answer, and says how long it took; for ever where nothing was asked, or the session is about to
    /// end. Dropping it loses nothing.
    async fn answered(&mut self) -> Duration {
        let Some(asked) = self.asked else {
            return pending().await;
        };
        if poll_fn(|cx| self.ping_pong.poll_pong(cx)).await.is_err() {
            return pending().await;
        }
        self.asked = None;
        asked.elapsed()
    }
}

#[cfg(test)]
mod tests;
