//! Connections that nobody will end: the peer's machine is gone without a word, or one side has closed, and the other
//! keeps its end and forgets it. Each holds a place of its session.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

/// Silence after which the kernel asks the peer's kernel, and then how often and how many times: one that is gone is
/// noticed after a minute.
const ASK_AFTER: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_secs(10);
const ASK_TIMES: u32 = 3;
/// How long a connection may stand still that one side has closed, and how often is looked whether it does. What both
/// keep open may be silent for ever.
const HALF_CLOSED_TIME: Duration = Duration::from_hours(1);
const LOOK: Duration = Duration::from_mins(1);

/// Lets the kernel notice that the peer of a silent connection is gone.
pub(super) fn ask_kernel(socket: &TcpStream) {
    let asking = TcpKeepalive::new()
        .with_time(ASK_AFTER)
        .with_interval(ASK_EVERY)
        .with_retries(ASK_TIMES);
    if let Err(error) = SockRef::from(socket).set_tcp_keepalive(&asking) {
        tracing::debug!(%error, "a peer that is gone will not be noticed");
    }
}

/// Returns once nothing has moved for so long that nobody waits for it any more; `moved` counts the bytes.
pub(super) async fn until_forgotten(moved: impl Fn() -> u64) {
    let (mut before, mut since) = (moved(), Instant::now());
    while since.elapsed() < HALF_CLOSED_TIME {
        sleep(LOOK).await;
        let now = moved();
        if now != before {
            (before, since) = (now, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, pin::pin};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_moves_is_not_forgotten() {
        let bytes = Cell::new(0);
        let mut forgotten = pin!(until_forgotten(|| bytes.get()));
        for _ in 0..5 {
            let almost = HALF_CLOSED_TIME.saturating_sub(2 * LOOK);
            assert!(timeout(almost, &mut forgotten).await.is_err());
            bytes.set(bytes.get() + 1);
        }
        let last = Instant::now();
        forgotten.await;
        let stood_still = last.elapsed();
        assert!(stood_still >= HALF_CLOSED_TIME, "{stood_still:?}");
        assert!(stood_still <= HALF_CLOSED_TIME + LOOK, "{stood_still:?}");
    }
}
