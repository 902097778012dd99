//! HTTP/1 for callers that have proved nothing, in the process that carries everybody's connections.
//!
//! Whoever may connect may also say half a request and wait. So connections are bounded in time and
//! number, and a newcomer gets the place of the one that has kept us waiting longest: a probe that asks
//! at once is answered however many others hold connections open.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Router, serve::Listener};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service as _;

/// The most connections at a time.
const MOST: usize = 64;
/// With those that have lost their place and are about to be closed. Others wait in the kernel's queue.
const MOST_OPEN: usize = MOST * 3 / 2;
/// The longest wait for a request's head, and for the next request of a connection.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// The longest that a connection is of use, whatever it does.
const CONNECTION_TIME: Duration = Duration::from_mins(1);
/// How long an answer that is under way may take to end after that, or after the stop.
const GRACE: Duration = Duration::from_secs(1);
/// What a connection has left whose place is taken: on a busy machine its request may have come and not been read.
const LAST_CHANCE: Duration = Duration::from_millis(10);
/// The longest head of a request.
const HEAD_SIZE: usize = 16 * 1024;

/// The connections that are open.
#[derive(Debug, Default)]
struct Connections {
    next: u64,
    /// In the order in which they came.
    open: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    /// Whether we owe it an answer; otherwise we wait for it to ask, or to take what it asked for.
    is_answered: bool,
    evicted: CancellationToken,
}

/// A connection's place, free again when this is dropped.
struct Place {
    connections: Arc<Mutex<Connections>>,
    number: u64,
    evicted: CancellationToken,
}

/// Serves until the shutdown.
pub(super) async fn serve<L: Listener>(
    mut listener: L,
    routes: Router,
    shutdown: CancellationToken,
) {
    let connections = Arc::default();
    let open = Arc::new(Semaphore::new(MOST_OPEN));
    let tasks = TaskTracker::new();
    loop {
        let next = async {
            let permit = Arc::clone(&open).acquire_owned().await;
            (listener.accept().await, permit)
        };
        let ((accepted, _peer), permit) = tokio::select! {
            next = next => next,
            () = shutdown.cancelled() => break,
        };
        // Dropped at once where all others wait for an answer of ours.
        if let Some(place) = Place::take(&connections) {
            let one = one(accepted, routes.clone(), place, shutdown.clone());
            tasks.spawn(async move {
                one.await;
                drop(permit);
            });
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn one<L>(accepted: L, routes: Router, place: Place, shutdown: CancellationToken)
where
    L: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let mut routes = routes.clone();
        let place = &place;
        async move {
            place.answering(true);
            let answer = routes.call(request).await;
            place.answering(false);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_SIZE)
        .serve_connection(TokioIo::new(accepted), service);
    let mut connection = pin!(connection);
    tokio::select! {
        // What went wrong is the caller's own business.
        _ = &mut connection => return,
        () = place.evicted.cancelled() => {
            let _ = timeout(LAST_CHANCE, connection).await;
            return;
        }
        () = sleep(CONNECTION_TIME) => {}
        () = shutdown.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(GRACE, connection).await;
}

impl Connections {
    /// A newcomer's number, if there is room for it or somebody makes room.
    fn enter(&mut self, evicted: CancellationToken) -> Option<u64> {
        if self.open.len() >= MOST {
            let mut open = self.open.iter();
            let idle = open.find(|(_, connection)| !connection.is_answered);
            let (&number, _) = idle?;
            self.open.remove(&number)?.evicted.cancel();
        }
        let number = self.next;
        self.next += 1;
        let connection = Connection {
            is_answered: false,
            evicted,
        };
        self.open.insert(number, connection);
        Some(number)
    }
}

impl Place {
    fn take(connections: &Arc<Mutex<Connections>>) -> Option<Self> {
        let evicted = CancellationToken::new();
        let number = lock(connections).enter(evicted.clone())?;
        Some(Self {
            connections: Arc::clone(connections),
            number,
            evicted,
        })
    }

    fn answering(&self, is_answered: bool) {
        if let Some(connection) = lock(&self.connections).open.get_mut(&self.number) {
            connection.is_answered = is_answered;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.connections).open.remove(&self.number);
    }
}

fn lock(connections: &Mutex<Connections>) -> MutexGuard<'_, Connections> {
    // Whole between any two operations, whatever panicked meanwhile.
    connections.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newcomer_gets_the_place_of_the_oldest_that_is_owed_no_answer() {
        let connections = Arc::default();
        let mut places: Vec<_> = (0..MOST)
            .map(|_| Place::take(&connections).unwrap())
            .collect();
        places[0].answering(true);
        let newcomer = Place::take(&connections).unwrap();
        let evicted = |place: &Place| place.evicted.is_cancelled();
        assert!(!evicted(&places[0]) && evicted(&places[1]) && !evicted(&places[2]));
        newcomer.answering(true);
        places[2..].iter().for_each(|place| place.answering(true));
        assert!(
            Place::take(&connections).is_none(),
            "all are being answered"
        );
        places.pop();
        assert!(Place::take(&connections).is_some());
    }
}
