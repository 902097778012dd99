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

use crate::{bind::into_tokio, wait::changed};

/// Something that listens.
pub(in crate::frontend) trait Listens {
    /// Its socket.
    fn socket(&self) -> &Arc<net::TcpListener>;
}

/// Follows the listening sockets of this moment, each by what its clients have in common.
pub(in crate::frontend) struct Listeners<K, S> {
    published: watch::Receiver<BTreeMap<K, S>>,
    all: Vec<Listener<K>>,
    /// How long a socket that was replaced is still accepted from: clients were on their way to it.
    on_the_way: Duration,
}

struct Listener<K> {
    key: K,
    socket: Arc<net::TcpListener>,
    watched: TcpListener,
    /// It was replaced; not accepted from any more after this.
    until: Option<Instant>,
}

impl Listens for Arc<net::TcpListener> {
    fn socket(&self) -> &Self {
        self
    }
}

impl<K: Copy + Ord, S: Listens> Listeners<K, S> {
    pub(in crate::frontend) fn new(
        published: watch::Receiver<BTreeMap<K, S>>,
        on_the_way: Duration,
    ) -> io::Result<Self> {
        let mut listeners = Self {
            published,
            all: Vec::new(),
            on_the_way,
        };
        listeners.renew()?;
        Ok(listeners)
    }

    /// The next client of any of them. Cancelling it loses nobody.
    pub(super) async fn accept(&mut self) -> io::Result<(K, TcpStream, SocketAddr)> {
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

    pub(super) fn into_all(self) -> impl Iterator<Item = (K, TcpListener)> {
        let all = self.all.into_iter();
        all.map(|listener| (listener.key, listener.watched))
    }

    fn renew(&mut self) -> io::Result<()> {
        let published = self.published.borrow_and_update();
        let sockets: Vec<_> = published
            .iter()
            .map(|(key, listens)| (*key, Arc::clone(listens.socket())))
            .collect();
        drop(published);
        for (key, socket) in &sockets {
            if !self.all.iter().any(|known| known.is_of(socket)) {
                self.all.push(Listener::new(*key, Arc::clone(socket))?);
            }
        }
        let now = Instant::now();
        for known in &mut self.all {
            let is_there = sockets.iter().any(|(_, socket)| known.is_of(socket));
            known.until = (!is_there).then(|| known.until.unwrap_or(now + self.on_the_way));
        }
        self.let_go(now);
        Ok(())
    }
}

impl<K> Listener<K> {
    fn new(key: K, socket: Arc<net::TcpListener>) -> io::Result<Self> {
        Ok(Self {
            key,
            watched: into_tokio(socket.try_clone()?)?,
            socket,
            until: None,
        })
    }

    fn is_of(&self, socket: &Arc<net::TcpListener>) -> bool {
        Arc::ptr_eq(&self.socket, socket)
    }
}

async fn accept_any<K: Copy>(listeners: &[Listener<K>]) -> io::Result<(K, TcpStream, SocketAddr)> {
    let accepts = listeners.iter().map(|listener| {
        Box::pin(async {
            let (stream, peer) = listener.watched.accept().await?;
            Ok((listener.key, stream, peer))
        })
    });
    if listeners.is_empty() {
        return std::future::pending().await;
    }
    select_all(accepts).await.0
}
