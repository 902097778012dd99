//! What a client has said before its dial leaves. It travels with the dial, so that the first flight of a TLS client costs
//! no round trip of its own.
//!
//! Bytes that may have left are gone with a dial that fails: they are never sent a second time, and so such a dial is not
//! tried again.

use std::time::Duration;

use bytes::Bytes;
use rustix::{
    buffer::spare_capacity,
    net::{RecvFlags, recv},
};
use tokio::{net::TcpStream, time::timeout};

use super::memory::{ConnectionShare, ReadMemory, SMALLEST_READ};

/// The most that travels with a dial: more than a `ClientHello` with post-quantum keys, and than the head of a request.
const MOST: usize = 16 * 1024;
/// The part of a round trip for which a dial waits for the first bytes, which would cost a whole one if they came after it.
const WAIT: u32 = 16;
/// Less is not waited for: timers are not that fine. More neither: some clients let the other end speak first.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(5);

/// The first bytes of one client.
#[derive(Default)]
pub struct FirstBytes<'a> {
    client: Option<&'a TcpStream>,
    read: Option<Read>,
    have_left: bool,
}

struct Read {
    bytes: Bytes,
    _memory: ReadMemory,
}

impl<'a> FirstBytes<'a> {
    /// What is there to be read of this client.
    pub fn of(client: &'a TcpStream) -> Self {
        Self {
            client: Some(client),
            ..Self::default()
        }
    }

    /// The bytes, which are read when they are asked for first: then there is memory for them.
    pub(super) async fn read(
        &mut self,
        share: &ConnectionShare,
        round_trip: Option<Duration>,
    ) -> Bytes {
        if let (Some(client), None) = (self.client, &self.read) {
            if let Some(wait) = round_trip.and_then(wait) {
                // Late ones follow by themselves.
                let _ = timeout(wait, client.readable()).await;
            }
            self.read = read(client, share);
        }
        self.read
            .as_ref()
            .map(|read| read.bytes.clone())
            .unwrap_or_default()
    }

    /// The dial is about to leave with them.
    pub(super) fn leave(&mut self) {
        self.have_left = self.read.is_some();
    }

    /// Whether another session may be asked: the target has certainly heard nothing.
    pub(super) fn may_be_sent(&self) -> bool {
        !self.have_left
    }
}

fn wait(round_trip: Duration) -> Option<Duration> {
    let wait = (round_trip / WAIT).min(LONGEST_WAIT);
    (wait >= SHORTEST_WAIT).then_some(wait)
}

/// What is there; a client that has closed or failed already is left to who carries it, and to who watches it.
fn read(client: &TcpStream, share: &ConnectionShare) -> Option<Read> {
    let (most, memory) = match share.draw_read(MOST) {
        Some(memory) => (MOST, memory),
        None => (SMALLEST_READ, share.own_read(SMALLEST_READ)),
    };
    let mut bytes = Vec::with_capacity(most);
    // The kernel is asked, since the runtime may not have heard yet that there is something.
    let (count, _) = recv(client, spare_capacity(&mut bytes), RecvFlags::DONTWAIT).ok()?;
    (count > 0).then(|| Read {
        bytes: bytes.into(),
        _memory: memory,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_round_trip_is_worth_waiting_for() {
        let ms = Duration::from_millis;
        assert_eq!(wait(Duration::ZERO), None);
        assert_eq!(wait(ms(15)), None);
        assert_eq!(wait(ms(16)), Some(ms(1)));
        assert_eq!(wait(ms(64)), Some(ms(4)));
        assert_eq!(wait(ms(1000)), Some(ms(5)));
    }
}
