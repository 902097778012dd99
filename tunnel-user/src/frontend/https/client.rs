//! One client that speaks TLS, from accept to close.

use std::{io, sync::Arc, time::Duration};

use rustix::{
    buffer::spare_capacity,
    io::ioctl_fionread,
    net::{RecvFlags, recv},
};
use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::TcpStream,
};

use super::{
    Serving,
    client_hello::{self, ClientHello, HelloError, MOST_BYTES, Progress},
    refusal::{Alert, Refusal},
    route::Asked,
    termination::Termination,
};
use crate::{
    frontend::{
        Stops,
        carrier::{Accepted, NotCarried},
        linger,
    },
    model::{HttpsTarget, PeerAddr},
    observability::metrics::{Frontend, Outcome},
    strangers::{Permit, Place, Present, Turn, within},
    tunnel::{Destination, reset},
};

/// The longest wait for the hello. A client sends it with the packet that connects, or in the next one.
const HELLO_TIME: Duration = Duration::from_secs(3);

/// A client, and which port of a node it means.
pub(super) struct Client {
    pub(super) accepted: Accepted,
    pub(super) target: HttpsTarget,
    pub(super) serving: Arc<Serving>,
}

impl Client {
    /// Carries the client until it and its target have closed, or answers it; `stops` say when that ends.
    pub(super) async fn serve(self, place: Place, stops: Stops) {
        let Self {
            accepted,
            target,
            serving,
        } = self;
        let (peer, carrier) = (accepted.peer, &serving.carrier);
        if !carrier.admit(&accepted) {
            return;
        }
        let abort = stops.abort.clone();
        let meant = tokio::select! {
            meant = serving.meant(&accepted, target, &place.permit) => meant,
            () = abort.cancelled() => return reset(&accepted.stream),
        };
        let destination = match meant {
            Ok(Meant::Node(destination)) => destination,
            Ok(Meant::ThisServer(termination, room)) => {
                if let Err(refusal) = termination.serve(accepted, place, room, stops).await {
                    serving.tell(peer, &refusal);
                }
                return;
            }
            Err(refusal) => {
                return serving
                    .refuse(accepted.stream, peer, &refusal, &place.permit)
                    .await;
            }
        };
        // What a carried client costs, its node's places and the memory for connections bound.
        drop(place);
        let end = carrier.carry(accepted, &destination, Frontend::Https, abort);
        match end.await {
            Err(NotCarried {
                stream,
                outcome: Outcome::DialFailed,
            }) => {
                // It only has to take the refusal.
                let place = serving.limiter.place(peer, Turn::Peers);
                let refusal = Refusal::DialFailed;
                serving.refuse(stream, peer, &refusal, &place.permit).await;
            }
            Err(NotCarried { stream, .. }) => reset(&stream),
            Ok(()) => {}
        }
    }
}

/// Where a client wants to go.
enum Meant<'a> {
    /// To a node, undecrypted.
    Node(Destination),
    /// No further than this server, where there is room for it.
    ThisServer(&'a Termination, Present),
}

impl Serving {
    /// Where the client wants to go.
    async fn meant(
        &self,
        client: &Accepted,
        target: HttpsTarget,
        permit: &Permit,
    ) -> Result<Meant<'_>, Refusal> {
        let hello = within(HELLO_TIME, permit, hello(&client.stream)).await?;
        let ClientHello { server_name } = hello.map_err(Refusal::Hello)?;
        if target == HttpsTarget::Kubelet
            && let Some(termination) = &self.termination
            && termination.is_meant(server_name.as_deref())
        {
            let room = termination.proxy.room().ok_or(Refusal::TooMany)?;
            return Ok(Meant::ThisServer(termination, room));
        }
        let own_addresses = &self.carrier.clients.own_addresses;
        let asked = Asked {
            server_name: server_name.as_deref(),
            target,
            may_use_loopback_ports: !self.guards_loopback_ports
                || own_addresses.is_this_machine(client.peer),
        };
        asked.destination(&self.snapshots.borrow()).map(Meant::Node)
    }

    /// Counts a refusal, tells of it, and tells the client.
    async fn refuse(&self, stream: TcpStream, peer: PeerAddr, refusal: &Refusal, permit: &Permit) {
        self.tell(peer, refusal);
        match refusal.alert() {
            Some(alert) => say(stream, alert, permit).await,
            None => reset(&stream),
        }
    }

    /// Counts a refusal, and tells of it.
    fn tell(&self, peer: PeerAddr, refusal: &Refusal) {
        let reason = refusal.reason();
        self.refusals.count(reason);
        if refusal.is_news() {
            // Counted apart by the log limiter.
            let about = reason.as_str();
            tracing::info!(%peer, about, %refusal, "refused a client of an HTTPS port");
        } else {
            tracing::debug!(%peer, %refusal, "a client of an HTTPS port was not carried");
        }
    }
}

/// What the client says first. It is looked at where it is, in the kernel's buffer: so it costs no memory here, and
/// goes to the node with the dial as any client's first bytes do.
async fn hello(stream: &TcpStream) -> io::Result<Result<ClientHello, HelloError>> {
    let mut needed = 1;
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        // Where there is too little it is not ready: more of it makes it so.
        match stream.try_io(Interest::READABLE, || look(stream, needed)) {
            Ok(Ok(Progress::Whole(hello))) => return Ok(Ok(hello)),
            Ok(Ok(Progress::Needs(more))) => needed = more,
            Ok(Err(error)) => return Ok(Err(error)),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) if ready.is_read_closed() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(_) => {}
        }
    }
}

/// Peeks and parses; `WouldBlock` until `needed` bytes are there.
fn look(stream: &TcpStream, needed: usize) -> io::Result<Result<Progress, HelloError>> {
    let there = usize::try_from(ioctl_fionread(stream)?).unwrap_or(usize::MAX);
    if there < needed {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let mut bytes = Vec::with_capacity(there.min(MOST_BYTES));
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    recv(stream, spare_capacity(&mut bytes), flags)?;
    Ok(client_hello::read(&bytes))
}

/// Says why, and closes so that it arrives.
async fn say(mut stream: TcpStream, alert: Alert, permit: &Permit) {
    let farewell = async {
        stream.write_all(&alert.record()).await?;
        linger::until_closed(&stream).await
    };
    // Best effort.
    let _ = within(linger::TIME, permit, farewell).await;
}
