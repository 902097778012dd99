//! Clients whose TLS ends here: those that name no server, as whoever dials an address does, and those that name this
//! one. What they ask for by HTTP is answered by the [proxy](ReverseProxy) of the HTTP port, which wants to know from
//! each who it is.
//!
//! The server's own names come before the names of nodes: what is said here may be a token, and a node that is called
//! as a server is must not get it.

use std::{pin::pin, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{sync::watch, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::refusal::Refusal;
use crate::{
    frontend::{
        Stops,
        carrier::Accepted,
        http::{Arrived, Proof, ReverseProxy, UsersOptions},
        linger,
    },
    model::printable,
    strangers::{Permit, Place, Present, within},
    tunnel::{SharedSocket, reset},
};

/// How long a client may take for its part of the handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// How long what is under way may go on for a client whose CA is trusted no longer.
const UNDER_WAY_TIME: Duration = Duration::from_secs(30);
/// The most that are waited for, and the most requests under way: each holds two ends of TLS besides its heads.
const MOST: usize = 512;

/// What clients meet.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// The certificate that is shown, and the CAs of those that clients show.
    pub config: Arc<ServerConfig>,
    /// Cancelled once one of these CAs is trusted no longer.
    pub withdrawn: CancellationToken,
}

/// What is needed to end TLS here.
pub struct TerminationOptions {
    /// What clients meet, over time.
    pub tls: watch::Receiver<ClientTls>,
    /// Whether a name, in lower case and without the root's dot, is this server's.
    pub is_own_name: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    /// Who clients are, and how they are answered.
    pub users: UsersOptions,
}

/// Ends TLS.
pub(super) struct Termination {
    tls: watch::Receiver<ClientTls>,
    is_own_name: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    pub(super) proxy: ReverseProxy,
}

impl Termination {
    pub(super) fn new(options: TerminationOptions, abort: &CancellationToken) -> Self {
        let TerminationOptions {
            tls,
            is_own_name,
            users,
        } = options;
        Self {
            tls,
            is_own_name,
            proxy: ReverseProxy::for_users(users, MOST, abort),
        }
    }

    /// Whether a client that names this server, or none, means this one.
    pub(super) fn is_meant(&self, server_name: Option<&str>) -> bool {
        server_name.is_none_or(|name| {
            let name = name.to_ascii_lowercase();
            (self.is_own_name)(name.strip_suffix('.').unwrap_or(&name))
        })
    }

    /// Serves a client, for which there is room, until it closes.
    ///
    /// # Errors
    /// When no TLS is agreed on: it has heard so by then.
    pub(super) async fn serve(
        &self,
        client: Accepted,
        place: Place,
        room: Present,
        stops: Stops,
    ) -> Result<(), Refusal> {
        let Accepted { stream, peer, .. } = client;
        let stream = SharedSocket::new(stream);
        let socket = stream.share();
        let ClientTls { config, withdrawn } = self.tls.borrow().clone();
        let stream = tokio::select! {
            shaken = handshake(config, stream, &place.permit) => shaken?,
            () = stops.abort.cancelled() => {
                reset(&socket);
                return Ok(());
            }
        };
        // From here on it has one of the proxy's.
        drop(place);
        let proof = {
            let shown = stream.get_ref().1.peer_certificates();
            Proof::of(shown.and_then(|chain| chain.first()), &withdrawn)
        };
        let arrived = Arrived {
            stream,
            socket,
            peer,
            proof,
        };
        self.serve_while_trusted(arrived, stops, withdrawn).await;
        drop(room);
        Ok(())
    }

    /// Serves a client; one with a certificate has to come anew once a CA is withdrawn, which may be its own. What it has
    /// asked for until then is answered, as when this server stops, but not for ever.
    async fn serve_while_trusted(
        &self,
        arrived: Arrived<TlsStream<SharedSocket>>,
        stops: Stops,
        withdrawn: CancellationToken,
    ) {
        let is_by_certificate = !matches!(arrived.proof, Proof::None);
        let stops = Stops {
            accepting: stops.accepting.child_token(),
            abort: stops.abort.child_token(),
            ..stops
        };
        let (last_request, abort) = (stops.accepting.clone(), stops.abort.clone());
        let mut serving = pin!(self.proxy.serve(arrived, stops));
        tokio::select! {
            () = &mut serving => return,
            () = withdrawn.cancelled(), if is_by_certificate => last_request.cancel(),
        }
        if timeout(UNDER_WAY_TIME, &mut serving).await.is_err() {
            abort.cancel();
            serving.await;
        }
    }
}

async fn handshake(
    config: Arc<ServerConfig>,
    stream: SharedSocket,
    permit: &Permit,
) -> Result<TlsStream<SharedSocket>, Refusal> {
    let acceptor = TlsAcceptor::from(config);
    let accepting = async { Ok(acceptor.accept(stream).into_fallible().await) };
    let (error, stream) = match within(HANDSHAKE_TIME, permit, accepting).await? {
        Ok(stream) => return Ok(stream),
        Err(failed) => failed,
    };
    // It has been sent an alert, which has to arrive. Best effort.
    let _ = within(linger::TIME, permit, linger::until_closed(&stream.share())).await;
    Err(Refusal::Handshake(printable(&error.to_string())))
}

#[cfg(test)]
mod tests;
