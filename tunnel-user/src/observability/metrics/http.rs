//! What was answered to requests.

use http::StatusCode;
use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::labels::{ByCodeAndReason, CodeClass, HttpReason};

/// Counts requests.
#[derive(Clone, Debug)]
pub struct HttpRequests(Family<ByCodeAndReason, Counter>);

impl HttpRequests {
    pub(super) fn register(registry: &mut Registry, name: &str, help: &str) -> Self {
        let requests = Self(Family::default());
        registry.register(name, help, requests.0.clone());
        requests
    }

    /// Counts a request by its answer.
    pub fn count(&self, code: StatusCode, reason: HttpReason) {
        let code = CodeClass::of(code);
        let labels = ByCodeAndReason { code, reason };
        self.0.get_or_create(&labels).inc();
    }
}

impl CodeClass {
    fn of(code: StatusCode) -> Self {
        match code.as_u16() {
            ..200 => Self::Informational,
            200..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            500.. => Self::ServerError,
        }
    }
}
