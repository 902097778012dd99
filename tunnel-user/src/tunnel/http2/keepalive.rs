//! Notices a peer that has gone without a word: a black-holed link, a machine that lost power.
//!
//! What counts is any byte heard, not the answer to our ping: on a slow link full of data that
//! answer may queue behind seconds of it while the peer is perfectly alive.

use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

use super::Activity;
use crate::tunnel::Settings;

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

/// Returns once the peer has been silent for `keepalive_interval + keepalive_timeout`, having
/// been asked in between.
pub(crate) async fn until_silent(
    mut ping_pong: PingPong,
    activity: Activity,
    settings: Settings,
) -> Duration {
    loop {
        let silence = activity.silence();
        match judge(silence, &settings) {
            Verdict::Fine(look_again) => sleep(look_again).await,
            Verdict::Ask => {
                let answer = timeout(settings.keepalive_timeout, ping_pong.ping(Ping::opaque()));
                // An earlier ping may still be on its way; then only listening is left.
                if matches!(answer.await, Ok(Err(_))) {
                    sleep(settings.keepalive_timeout).await;
                }
            }
            Verdict::Gone => return silence,
        }
    }
}

fn judge(silence: Duration, settings: &Settings) -> Verdict {
    if silence >= settings.keepalive_interval + settings.keepalive_timeout {
        return Verdict::Gone;
    }
    match settings.keepalive_interval.checked_sub(silence) {
        Some(left) if !left.is_zero() => Verdict::Fine(left),
        Some(_) | None => Verdict::Ask,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_first_questioned_and_then_final() {
        let settings = Settings {
            keepalive_interval: Duration::from_secs(5),
            keepalive_timeout: Duration::from_secs(4),
            ..Settings::default()
        };
        let judge = |seconds| judge(Duration::from_secs(seconds), &settings);
        assert_eq!(judge(0), Verdict::Fine(Duration::from_secs(5)));
        assert_eq!(judge(3), Verdict::Fine(Duration::from_secs(2)));
        assert_eq!(judge(5), Verdict::Ask);
        assert_eq!(judge(8), Verdict::Ask);
        assert_eq!(judge(9), Verdict::Gone);
    }
}
