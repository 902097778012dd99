//! The meta server: `/metrics`, `/healthz` and `/readyz` over plain HTTP.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{encoding::text, registry::Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{http_server, metrics::register_process, readiness::Readiness};

/// <https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md#overall-structure>
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves this process's metrics and health.
#[derive(Debug)]
pub struct MetaServer {
    listener: TcpListener,
    routes: Router,
}

/// The meta server cannot have its address.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot serve /metrics, /healthz and /readyz on {address}: \
     choose another --meta-address or --meta-port"
)]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

#[derive(Clone)]
struct Shown {
    registry: Arc<Registry>,
    readiness: Readiness,
}

impl MetaServer {
    /// Binds the address; port 0 takes a free one.
    pub async fn new(
        address: SocketAddr,
        registry: Registry,
        readiness: Readiness,
    ) -> Result<Self, BindError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| BindError { address, source })?;
        Ok(Self::on(listener, registry, readiness))
    }

    /// Serves on a listener that is bound already. What the process uses is shown beside the
    /// metrics of `registry`.
    pub fn on(listener: TcpListener, mut registry: Registry, readiness: Readiness) -> Self {
        register_process(&mut registry);
        let routes = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .with_state(Shown {
                registry: Arc::new(registry),
                readiness,
            });
        Self { listener, routes }
    }

    /// The address it is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the shutdown.
    pub async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        http_server::serve(self.listener, self.routes, shutdown).await;
        Ok(())
    }
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let mut body = String::new();
    match text::encode(&mut body, &shown.registry) {
        Ok(()) => ([(CONTENT_TYPE, OPEN_METRICS)], body).into_response(),
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "cannot write the metrics\n",
        )
            .into_response(),
    }
}

async fn readyz(State(shown): State<Shown>) -> (StatusCode, String) {
    let report = shown.readiness.report();
    let status = if report.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, report.to_string())
}

#[cfg(test)]
mod tests;
