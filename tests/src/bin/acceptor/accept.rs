//! The accept loops: they are also what keeps the gate open.

use std::{
    io::{self, ErrorKind, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use culvert_tests::report::Accepted;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvFlags, recv},
};
use tokio_util::sync::CancellationToken;
use tunnel_user::redirect::{Heartbeat, OriginalDestinations, Redirect};

/// The longest wait in accept, so that the heartbeat goes on and a stop is noticed.
const WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};
const BEAT: Duration = Duration::from_millis(100);
/// How long connections are still accepted after the gate is closed. A client whose port is in use
/// again so soon that the old connection's end is still remembered has its first SYN answered by a
/// challenge, and sends another after one second (RFC 6298, section 2.1): to the port that it was
/// redirected to. A server that hands its socket over need not wait for that one.
const GRACE: Duration = Duration::from_millis(1500);

/// Accepts until it is told to stop, then closes the gate and serves what waits in the queues.
pub(crate) fn serve(
    listeners: &[TcpListener],
    threads: usize,
    spin: bool,
    redirect: &Mutex<Redirect>,
    stop: &CancellationToken,
) -> Result<Accepted> {
    let lock = || redirect.lock().expect("nobody panicked");
    let originals = lock().original_destinations();
    let heartbeat = lock().heartbeat();
    let acceptor = Acceptor {
        originals,
        heartbeat,
        spin,
        known: AtomicU64::new(0),
        unknown: AtomicU64::new(0),
    };
    let run = |until: &(dyn Fn() -> bool + Sync)| {
        thread::scope(|scope| {
            let loops: Vec<_> = (0..threads)
                .flat_map(|_| listeners)
                .map(|listener| scope.spawn(|| acceptor.run(listener, until)))
                .collect();
            loops
                .into_iter()
                .try_for_each(|one| one.join().expect("an accept loop does not panic"))
        })
    };
    run(&|| stop.is_cancelled())?;
    eprintln!("gate closed: {}", lock().close_gate()?);
    // A client may have been sent here just before, and its SYN still be on the way.
    let end = Instant::now() + GRACE;
    run(&|| Instant::now() >= end)?;
    Ok(Accepted {
        known: acceptor.known.into_inner(),
        unknown: acceptor.unknown.into_inner(),
        ..Accepted::default()
    })
}

struct Acceptor {
    originals: OriginalDestinations,
    heartbeat: Heartbeat,
    spin: bool,
    known: AtomicU64,
    unknown: AtomicU64,
}

impl Acceptor {
    /// Serves what is in the queue; ends when it is empty and `until` says so.
    fn run(&self, listener: &TcpListener, until: &(dyn Fn() -> bool + Sync)) -> io::Result<()> {
        let mut next_beat = Instant::now();
        loop {
            if Instant::now() >= next_beat {
                self.heartbeat.beat()?;
                next_beat = Instant::now() + BEAT;
            }
            match listener.accept() {
                Ok((client, _)) => self.greet(client)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if until() {
                        return Ok(());
                    }
                    self.wait(listener)?;
                }
                // The client was gone before it was accepted.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn wait(&self, listener: &TcpListener) -> io::Result<()> {
        if self.spin {
            std::hint::spin_loop();
            return Ok(());
        }
        poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&WAIT))?;
        Ok(())
    }

    /// Looks up the original destination before anything else happens.
    fn greet(&self, mut client: TcpStream) -> io::Result<()> {
        let original = self.originals.of(&client)?;
        // What came with the SYN: closing with bytes unread would be a reset.
        let _ = recv(&client, &mut [0; 64], RecvFlags::DONTWAIT);
        if let Some(original) = original {
            self.known.fetch_add(1, Ordering::Relaxed);
            // A client that is gone does not hear it.
            let _ = client.write_all(format!("{original}\n").as_bytes());
        } else {
            self.unknown.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}
