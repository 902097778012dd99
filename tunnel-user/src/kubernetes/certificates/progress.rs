//! How far a certificate request has come.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

/// What the request's status says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kubernetes) enum Progress {
    /// Nobody has decided.
    Pending,
    /// It will be signed.
    Approved,
    /// It has been signed; the certificate in PEM.
    Issued(Vec<u8>),
    /// It will not be signed; why.
    Denied(String),
    /// The signer refuses or cannot; why.
    Failed(String),
}

impl Progress {
    pub(in crate::kubernetes) fn of(csr: &CertificateSigningRequest) -> Self {
        let status = csr.status.as_ref();
        let conditions = status
            .and_then(|status| status.conditions.as_deref())
            .unwrap_or_default();
        let condition = |kind| {
            let holds = conditions
                .iter()
                .find(|c| c.type_ == kind && c.status == "True")?;
            let parts = [holds.reason.as_deref(), holds.message.as_deref()];
            let parts: Vec<_> = parts
                .into_iter()
                .flatten()
                .filter(|part| !part.is_empty())
                .collect();
            Some(if parts.is_empty() {
                "no reason was given".to_owned()
            } else {
                parts.join(": ")
            })
        };
        if let Some(reason) = condition("Denied") {
            return Self::Denied(reason);
        }
        if let Some(reason) = condition("Failed") {
            return Self::Failed(reason);
        }
        let certificate = status.and_then(|status| status.certificate.as_ref());
        match certificate.filter(|certificate| !certificate.0.is_empty()) {
            Some(certificate) => Self::Issued(certificate.0.clone()),
            None if condition("Approved").is_some() => Self::Approved,
            None => Self::Pending,
        }
    }

    /// What a request of this name waits for, and who can help.
    pub(in crate::kubernetes) fn waits_for(&self, name: &str) -> String {
        match self {
            Self::Approved => format!(
                "the certificate request {name} is approved but not signed: does the cluster's \
                 controller manager run, with a signing key (--cluster-signing-cert-file)?"
            ),
            _ => format!(
                "the certificate request {name} waits for approval: a culvert server with \
                 --approve-certificates does it, whose log says why it has not; to do it by hand, \
                 look at it with `kubectl describe csr {name}` and run `kubectl certificate approve {name}`"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        ByteString,
        api::certificates::v1::{
            CertificateSigningRequestCondition, CertificateSigningRequestStatus,
        },
    };

    use super::*;

    fn progress(conditions: &[(&str, &str)], certificate: &[u8]) -> Progress {
        let conditions =
            conditions
                .iter()
                .map(|(kind, status)| CertificateSigningRequestCondition {
                    type_: (*kind).to_owned(),
                    status: (*status).to_owned(),
                    reason: Some("Because".to_owned()),
                    message: Some("of that".to_owned()),
                    ..CertificateSigningRequestCondition::default()
                });
        Progress::of(&CertificateSigningRequest {
            status: Some(CertificateSigningRequestStatus {
                certificate: Some(ByteString(certificate.to_vec())),
                conditions: Some(conditions.collect()),
            }),
            ..CertificateSigningRequest::default()
        })
    }

    #[test]
    fn conditions_decide_and_refusals_come_with_their_reason() {
        let because = "Because: of that".to_owned();
        assert_eq!(
            Progress::of(&CertificateSigningRequest::default()),
            Progress::Pending
        );
        assert_eq!(progress(&[("Denied", "False")], b""), Progress::Pending);
        let approved = ("Approved", "True");
        assert_eq!(progress(&[approved], b""), Progress::Approved);
        assert_eq!(
            progress(&[approved], b"pem"),
            Progress::Issued(b"pem".to_vec())
        );
        let failed = progress(&[approved, ("Failed", "True")], b"");
        assert_eq!(failed, Progress::Failed(because.clone()));
        assert_eq!(
            progress(&[("Denied", "True")], b""),
            Progress::Denied(because)
        );
    }
}
