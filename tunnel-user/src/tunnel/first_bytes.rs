//! What a client has said before its dial leaves. It travels with the dial, so that the first flight of a TLS client
//! costs no round trip of its own.
//!
//! - Bytes that may have left are gone with a dial that fails: they are never sent a second time, and so such a dial is
//!   not tried again.
//! - All dials of a node share one control stream. What waits there is bounded, and counted as held until it is sent,
//!   also when its client has gone: a client that says much and leaves costs others nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rustix::{
    buffer::spare_capacity,
    io::ioctl_fionread,
    net::{RecvFlags, recv},
};
use tokio::{net::TcpStream, time::timeout};

use super::{
    carry::reset,
    memory::{ConnectionShare, ReadMemory},
};

/// The most that waits on the control stream of a session: on a slow link it is ahead of the dials that come next.
const MOST_WAITING: usize = 32 * 1024;
/// The part of a round trip for which a dial waits for the first bytes, which would cost a whole one if they came after
/// it.
const WAIT: u32 = 16;
/// Less is not waited for: timers are not that fine. More neither: some clients let the other end speak first.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(5);

/// The first bytes of one client.
#[derive(Default)]
pub struct FirstBytes<'a> {
    client: Option<&'a TcpStream>,
    read: Option<Bytes>,
    have_left: bool,
    /// Whoever has given them sends what no dial has taken along.
    are_kept: bool,
    /// The dial that is under way goes without them.
    stay: bool,
}

/// Counts the first bytes that wait on the control stream of one session. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting(Arc<AtomicUsize>);

/// Some bytes, for as long as anybody has them.
struct Read {
    bytes: Bytes,
    waiting: Waiting,
    _memory: ReadMemory,
}

impl<'a> FirstBytes<'a> {
    /// The most that travels with a dial: more than a `ClientHello` with post-quantum keys, and than the head of a
    /// request.
    pub(super) const MOST: usize = 16 * 1024;

    /// What is there to be read of this client.
    pub fn of(client: &'a TcpStream) -> Self {
        Self {
            client: Some(client),
            ..Self::default()
        }
    }

    /// These, if a dial takes any along; see [`Self::left`].
    pub(super) fn given(bytes: Bytes) -> Self {
        Self {
            read: Some(bytes).filter(|bytes| !bytes.is_empty()),
            are_kept: true,
            ..Self::default()
        }
    }

    /// The bytes, which are read when they are asked for first: then there is memory for them.
    pub(super) async fn read(
        &mut self,
        share: &ConnectionShare,
        waiting: &Waiting,
        round_trip: Option<Duration>,
    ) -> Bytes {
        if self.are_kept {
            return self.kept(share, waiting);
        }
        if let (Some(client), None) = (self.client, &self.read) {
            if let Some(wait) = round_trip.and_then(wait) {
                // Late ones follow by themselves.
                let _ = timeout(wait, client.readable()).await;
            }
            self.read = read(client, share, waiting);
        }
        self.read.clone().unwrap_or_default()
    }

    /// Those that were given, if there is room for them: they may as well come later.
    fn kept(&mut self, share: &ConnectionShare, waiting: &Waiting) -> Bytes {
        let bytes = self.read.clone().unwrap_or_default();
        self.stay = bytes.len() > waiting.room();
        if self.stay || bytes.is_empty() {
            return Bytes::new();
        }
        let (_, memory) = share.read_of(bytes.len());
        waiting.counted(bytes, memory)
    }

    /// The dial is about to leave with them.
    pub(super) fn leave(&mut self) {
        if !self.stay {
            // From here on they are the control stream's.
            self.have_left = self.read.take().is_some();
        }
    }

    /// Whether they have been taken from the client: who cannot send them may not serve it.
    pub(super) fn were_read(&self) -> bool {
        self.read.is_some()
    }

    /// Whether a session that cannot send them along would lose them.
    pub(super) fn would_be_lost(&self) -> bool {
        self.were_read() && !self.are_kept
    }

    /// What no dial has taken along.
    pub(super) fn left(self) -> Bytes {
        self.read.unwrap_or_default()
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

/// What is there, if it may wait; a client that has closed or failed already is left to who carries it, and to who
/// watches it.
fn read(client: &TcpStream, share: &ConnectionShare, waiting: &Waiting) -> Option<Bytes> {
    // The kernel is asked, since the runtime may not have heard yet that there is something.
    let there = ioctl_fionread(client).ok()?;
    let most = usize::try_from(there)
        .unwrap_or(FirstBytes::MOST)
        .min(FirstBytes::MOST);
    let most = most.min(waiting.room());
    if most == 0 {
        return None;
    }
    let (most, memory) = share.read_of(most);
    // What is taken from the kernel is missing where this process ends before it is sent.
    reset(client);
    let mut bytes = Vec::with_capacity(most);
    let (count, _) = recv(client, spare_capacity(&mut bytes), RecvFlags::DONTWAIT).ok()?;
    (count > 0).then(|| waiting.counted(bytes.into(), memory))
}

impl Waiting {
    fn room(&self) -> usize {
        MOST_WAITING.saturating_sub(self.0.load(Ordering::Relaxed))
    }

    /// The bytes, counted for as long as anybody has them.
    fn counted(&self, bytes: Bytes, memory: ReadMemory) -> Bytes {
        self.0.fetch_add(bytes.len(), Ordering::Relaxed);
        Bytes::from_owner(Read {
            bytes,
            waiting: self.clone(),
            _memory: memory,
        })
    }
}

impl AsRef<[u8]> for Read {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        self.waiting
            .0
            .fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;
    use crate::tunnel::{Client, Memory, testing::tcp_pair};

    #[tokio::test]
    async fn what_waits_for_a_slow_session_is_bounded_and_counted_until_it_is_sent() {
        let memory = Memory::new(1 << 30, 1 << 18);
        let share = memory.admit(Client::Machine).unwrap();
        let waiting = Waiting::default();
        let mut sent = Vec::new();
        loop {
            let (mut client, accepted) = tcp_pair().await;
            client
                .write_all(&vec![7; 2 * FirstBytes::MOST])
                .await
                .unwrap();
            accepted.readable().await.unwrap();
            let mut first = FirstBytes::of(&accepted);
            let bytes = first.read(&share, &waiting, None).await;
            assert_eq!(first.were_read(), !bytes.is_empty());
            if bytes.is_empty() {
                break;
            }
            sent.push(bytes);
        }
        let bytes: usize = sent.iter().map(Bytes::len).sum();
        assert_eq!(bytes, MOST_WAITING);
        assert_eq!(
            memory.held(),
            MOST_WAITING as u64,
            "their clients have gone"
        );
        sent.clear();
        assert_eq!((memory.held(), waiting.room()), (0, MOST_WAITING));
    }

    #[tokio::test]
    async fn given_bytes_wait_as_others_do_or_stay_with_who_has_given_them() {
        let memory = Memory::new(1 << 30, 1 << 18);
        let share = memory.admit(Client::Address([10, 0, 0, 1].into())).unwrap();
        let waiting = Waiting::default();
        let said = Bytes::from(vec![7; FirstBytes::MOST]);
        let mut sent = Vec::new();
        for _ in 0..MOST_WAITING / FirstBytes::MOST {
            let mut first = FirstBytes::given(said.clone());
            sent.push(first.read(&share, &waiting, None).await);
            first.leave();
            assert!(!first.may_be_sent() && first.left().is_empty());
        }
        assert!(sent.iter().all(|sent| *sent == said));
        let mut first = FirstBytes::given(said.clone());
        assert!(first.read(&share, &waiting, None).await.is_empty());
        first.leave();
        assert!(first.may_be_sent());
        sent.clear();
        assert_eq!(first.read(&share, &waiting, None).await, said);
        assert_eq!(first.left(), said);
        assert_eq!((memory.held(), waiting.room()), (0, MOST_WAITING));
    }

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
