//! The end of a session that has opened it: TCP, TLS and HTTP/2 to a server, and what keeps them moving. An agent's
//! session is one, and a server's [link](super::relay) to another server.

use std::{future::Future, net::SocketAddr, pin::pin, sync::Arc};

use anyhow::{Context as _, bail};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    Memory, Settings,
    carry::{ByteCounters, SessionFlow},
    transport::http2::{
        Activity, ClientConnection, Lost, Opener, Patience, ReadAhead, Segments, SharedSocket,
        Watched, WindowSetting, until_silent,
    },
};
use crate::model::ServerAddr;

/// What drives a session's bytes.
pub(super) struct ClientIo {
    pub(super) connection: ClientConnection<Watched<TlsStream<ReadAhead>>>,
    pub(super) activity: Activity,
    window: WindowSetting,
    pub(super) flow: SessionFlow,
}

/// Whom it is opened to, and how.
pub(super) struct ClientIoOptions<'a> {
    pub(super) server: &'a ServerAddr,
    pub(super) server_name: ServerName<'static>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) settings: &'a Settings,
    pub(super) memory: &'a Memory,
    pub(super) counters: ByteCounters,
}

/// Why there is nothing left to drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IoEnd {
    ClosedByServer,
    /// TCP, TLS or HTTP/2 has failed.
    ConnectionFailed,
    Lost(Lost),
    EndedHere,
}

impl ClientIo {
    /// Shakes hands on a socket that is connected.
    pub(super) async fn open(
        options: ClientIoOptions<'_>,
        socket: SharedSocket,
        segments: Segments,
    ) -> anyhow::Result<(Opener, Self, SocketAddr)> {
        let ClientIoOptions {
            server,
            server_name,
            tls,
            settings,
            memory,
            counters,
        } = options;
        let remote = socket.share().peer_addr()?;
        let stream = TlsConnector::from(tls)
            .connect(server_name, ReadAhead::new(socket))
            .await
            .with_context(|| format!("TLS with server {server}"))?;
        let (stream, activity) = Watched::new(stream, segments);
        let window = WindowSetting::new(memory);
        let (opener, connection) = Opener::handshake(settings, window.told(), stream)
            .await
            .with_context(|| format!("HTTP/2 with server {server}"))?;
        let io = Self {
            connection,
            activity,
            window,
            flow: SessionFlow::new(settings, counters),
        };
        Ok((opener, io, remote))
    }

    /// Moves the session's bytes until it is over, or `serving` is.
    pub(super) async fn drive<E: From<IoEnd>>(
        &mut self,
        serving: impl Future<Output = E>,
        patience: Patience,
        end: &CancellationToken,
        server: &ServerAddr,
    ) -> E {
        let Self {
            connection,
            activity,
            window,
            flow,
        } = self;
        let ping_pong = connection.ping_pong().expect("taken once");
        let mut silent = pin!(until_silent(
            ping_pong,
            activity,
            patience,
            &flow.round_trip
        ));
        let mut serving = pin!(serving);
        loop {
            tokio::select! {
                closed = &mut *connection => return match closed {
                    Ok(()) => IoEnd::ClosedByServer,
                    Err(error) => {
                        tracing::debug!(%server, %error, "connection failed");
                        IoEnd::ConnectionFailed
                    }
                }.into(),
                done = &mut serving => return done,
                lost = &mut silent => return IoEnd::Lost(lost).into(),
                size = window.due() => {
                    window.tell(size, &connection.set_initial_window_size(size));
                }
                () = end.cancelled() => return IoEnd::EndedHere.into(),
            }
        }
    }

    /// Nothing moves on an HTTP/2 connection unless somebody polls it.
    pub(super) async fn while_driving<T>(
        &mut self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        tokio::select! {
            biased;
            done = work => done,
            closed = &mut self.connection => match closed {
                Ok(()) => bail!("the server closed the connection"),
                Err(error) => Err(error).context("the connection failed"),
            },
        }
    }
}
