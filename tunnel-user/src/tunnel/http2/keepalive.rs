//! Notices a peer that has gone without a word: a black-holed link, a machine that lost power.
//!
//! What counts is any byte heard, not the answer to our ping: on a slow link full of data that answer may queue behind
//! seconds of it while the peer is perfectly alive. On a link that is full of *ours* the question itself queues, and where
//! a packet was lost nothing can be read until it has come again: so what the [kernel sees](super::segments) counts as well.
//!
//! Both ends watch. Were they to ask at the same time, each question would be asked twice, and a server has
//! thousands of peers: the agent asks first, and its question is the sign of life that the server waits for.

use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

use super::{Activity, activity::Silence};
use crate::tunnel::Settings;

/// How often a peer that owes an answer is looked at: what waits to be sent must be seen to shrink.
const LOOK: Duration = Duration::from_secs(1);

/// A peer whose kernel answers, but which says nothing, hangs; or it waits for its turn to send again what a full queue on
/// the way has dropped, which on a slow link takes longer than silence on a dead one may last.
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
    Gone,
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
        let Silence { of_life, of_path } = silence;
        if of_path >= self.end || of_life >= self.end * STUCK {
            return Verdict::Gone;
        }
        match self.ask.checked_sub(of_life) {
            Some(left) if !left.is_zero() => Verdict::Fine(left),
            Some(_) | None => Verdict::Ask,
        }
    }
}

/// Returns once nothing has come for `keepalive_interval + keepalive_timeout`, the peer having been asked in between; or for
/// [`STUCK`] times as long nothing that shows that more than its kernel is there.
pub(crate) async fn until_silent(
    mut ping_pong: PingPong,
    mut activity: Activity,
    patience: Patience,
) -> Duration {
    let answer_time = patience.end.saturating_sub(patience.ask);
    loop {
        let silence = activity.silence();
        match patience.judge(silence) {
            Verdict::Fine(look_again) => sleep(look_again).await,
            Verdict::Ask => {
                let look_again = answer_time.min(LOOK);
                let answer = timeout(look_again, ping_pong.ping(Ping::opaque()));
                // An earlier ping may still be on its way; then only listening is left.
                if matches!(answer.await, Ok(Err(_))) {
                    sleep(look_again).await;
                }
            }
            Verdict::Gone => return silence.of_life,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(4),
            ..Settings::default()
        }
    }

    fn silence(of_life: u64, of_path: u64) -> Silence {
        Silence {
            of_life: Duration::from_secs(of_life),
            of_path: Duration::from_secs(of_path),
        }
    }

    #[test]
    fn a_peer_whose_kernel_answers_is_asked_for_longer_and_not_for_ever() {
        let judge = |life, path| Patience::of_agent(&settings()).judge(silence(life, path));
        assert_eq!(judge(10, 1), Verdict::Ask);
        assert_eq!(judge(53, 8), Verdict::Ask);
        assert_eq!(judge(53, 9), Verdict::Gone);
        assert_eq!(judge(54, 1), Verdict::Gone);
    }

    #[test]
    fn silence_is_first_questioned_and_then_final() {
        let judge = |seconds| Patience::of_agent(&settings()).judge(silence(seconds, seconds));
        assert_eq!(judge(0), Verdict::Fine(Duration::from_secs(5)));
        assert_eq!(judge(3), Verdict::Fine(Duration::from_secs(2)));
        assert_eq!(judge(5), Verdict::Ask);
        assert_eq!(judge(8), Verdict::Ask);
        assert_eq!(judge(9), Verdict::Gone);
    }

    #[test]
    fn the_agent_asks_before_the_server_does_and_both_give_up_at_the_same_time() {
        let server = |seconds| Patience::of_server(&settings()).judge(silence(seconds, seconds));
        assert_eq!(server(5), Verdict::Fine(Duration::from_secs(1)));
        assert_eq!(server(6), Verdict::Ask);
        assert_eq!(server(8), Verdict::Ask);
        assert_eq!(server(9), Verdict::Gone);
    }
}
