//! When certificates expire: the one number to alert on before a link dies of old age.

use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use time::OffsetDateTime;

use super::labels::ByCertificate;

/// The expiry of the certificates that this process uses itself.
#[derive(Clone, Debug, Default)]
pub struct Certificates(Family<ByCertificate, Gauge>);

impl Certificates {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let certificates = Self::default();
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When the certificate expires, since the epoch",
            Unit::Seconds,
            certificates.0.clone(),
        );
        certificates
    }

    /// Says when a certificate expires. The name is one of a few fixed ones: `ca`, `server`,
    /// `agent`.
    pub fn set_expiry(&self, certificate: &str, expires: OffsetDateTime) {
        let certificate = certificate.to_owned();
        self.0
            .get_or_create(&ByCertificate { certificate })
            .set(expires.unix_timestamp());
    }
}
