//! The sockets that clients are accepted from, which may be replaced by others meanwhile.

use std::{
    collections::BTreeMap,
    io,
    net::{self, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::select_all;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::Instant,
};

use crate::{bind::into_tokio, model::Family, wait::changed};

/// How long a socket that was replaced is still accepted from: clients were on their way to it.
const ON_THE_WAY: Duration = Duration::from_secs(10);

/// The listening sockets of this moment: one of each family.
pub type Listening = BTreeMap<Family, ClientSocket>;

/// Where clients of one family arrive.
#[derive(Clone, Debug)]
pub struct ClientSocket {
    /// The socket's address.
    pub address: SocketAddr,
    /// What speaks for the address, for a person.
    pub reason: String,
    /// The socket.
    pub socket: Arc<net::TcpListener>,
}

/// Follows them.
pub(super) struct Listeners {
    published: watch::Receiver<Listening>,
    all: Vec<Listener>,
}

struct Listener {
    socket: Arc<net::TcpListener>,
    watched: TcpListener,
    /// It was replaced; not accepted from any more after this.
    until: Option<Instant>,
}

impl Listeners {
    pub(super) fn new(published: watch::Receiver<Listening>) -> io::Result<Self> {
        let mut listeners = Self {
            published,
            all: Vec::new(),
        };
        listeners.renew()?;
        Ok(listeners)
    }

    /// The next client of any of them. Cancelling it loses nobody.
    pub(super) async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            tokio::select! {
                accepted = accept_any(&self.all) => return accepted,
                () = changed(&mut self.published) => {}
            }
            if let Err(error) = self.renew() {
                // Tried again with the next failure that this leads to.
                self.published.mark_changed();
                return Err(error);
            }
        }
    }

    /// Closes those for which the time is over.
    pub(super) fn let_go(&mut self, now: Instant) {
        self.all
            .retain(|listener| listener.until.is_none_or(|until| now < until));
    }

    pub(super) fn into_all(self) -> Vec<TcpListener> {
        self.all
            .into_iter()
            .map(|listener| listener.watched)
            .collect()
    }

    fn renew(&mut self) -> io::Result<()> {
        let published = self.published.borrow_and_update();
        let sockets: Vec<_> = published
            .values()
            .map(|client| Arc::clone(&client.socket))
            .collect();
        drop(published);
        for socket in &sockets {
            if !self.all.iter().any(|known| known.is_of(socket)) {
                self.all.push(Listener::new(Arc::clone(socket))?);
            }
        }
        let over = Instant::now() + ON_THE_WAY;
        for known in &mut self.all {
            let is_there = sockets.iter().any(|socket| known.is_of(socket));
            known.until = (!is_there).then(|| known.until.unwrap_or(over));
        }
        Ok(())
    }
}

impl Listener {
    fn new(socket: Arc<net::TcpListener>) -> io::Result<Self> {
        Ok(Self {
            watched: into_tokio(socket.try_clone()?)?,
            socket,
            until: None,
        })
    }

    fn is_of(&self, socket: &Arc<net::TcpListener>) -> bool {
        Arc::ptr_eq(&self.socket, socket)
    }
}

async fn accept_any(listeners: &[Listener]) -> io::Result<(TcpStream, SocketAddr)> {
    let accepts = listeners
        .iter()
        .map(|listener| Box::pin(listener.watched.accept()));
    if listeners.is_empty() {
        return std::future::pending().await;
    }
    select_all(accepts).await.0
}
