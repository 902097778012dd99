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
use tokio_util::sync::CancellationToken;

use super::{
    HttpsOptions, Serving,
    client_hello::{self, ClientHello, HelloError, MOST_BYTES, Progress},
    refusal::{Alert, Refusal},
    route::Asked,
};
use crate::{
    frontend::{
        carrier::{Accepted, NotCarried},
        linger,
    },
    model::{HttpsTarget, PeerAddr},
    observability::metrics::{Frontend, Outcome},
    strangers::{Permit, Place, Turn, within},
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
    /// Carries the client until it and its target have closed; `abort` resets it.
    pub(super) async fn serve(self, place: Place, abort: CancellationToken) {
        let Self {
            accepted,
            target,
            serving,
        } = self;
        let (peer, carrier) = (accepted.peer, &serving.options.carrier);
        if !carrier.admit(&accepted) {
            return;
        }
        let destination = tokio::select! {
            destination = serving.destination(&accepted, target, &place.permit) => destination,
            () = abort.cancelled() => return reset(&accepted.stream),
        };
        let destination = match destination {
            Ok(destination) => destination,
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

impl Serving {
    /// Where the client wants to go.
    async fn destination(
        &self,
        client: &Accepted,
        target: HttpsTarget,
        permit: &Permit,
    ) -> Result<Destination, Refusal> {
        let hello = within(HELLO_TIME, permit, hello(&client.stream)).await?;
        let ClientHello { server_name } = hello.map_err(Refusal::Hello)?;
        let HttpsOptions {
            snapshots,
            carrier,
            guards_loopback_ports,
            ..
        } = &self.options;
        let asked = Asked {
            server_name: server_name.as_deref(),
            target,
            may_use_loopback_ports: !guards_loopback_ports
                || carrier.clients.own_addresses.is_this_machine(client.peer),
        };
        asked.destination(&snapshots.borrow())
    }

    /// Counts a refusal, tells of it, and tells the client.
    async fn refuse(&self, stream: TcpStream, peer: PeerAddr, refusal: &Refusal, permit: &Permit) {
        let reason = refusal.reason();
        self.options.refusals.count(reason);
        if refusal.is_news() {
            // Counted apart by the log limiter.
            let about = reason.as_str();
            tracing::info!(%peer, about, %refusal, "refused a client of an HTTPS port");
        } else {
            tracing::debug!(%peer, %refusal, "a client of an HTTPS port was not carried");
        }
        match refusal.alert() {
            Some(alert) => say(stream, alert, permit).await,
            None => reset(&stream),
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
