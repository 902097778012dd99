//! A decision, written into the request that it is about, unless that has changed meanwhile.

use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use kube::{Api, api::PostParams};
use tokio::time::timeout;

use super::{decision::Decision, term::ANSWER_TIME};
use crate::{
    kubernetes::{
        api_error::{describe, is_status},
        certificates::progress::Progress,
    },
    model::{printable, printable_up_to},
};

/// The longest message of a decision.
const LONGEST_MESSAGE: usize = 1024;

/// Which state of which object was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    uid: Option<String>,
    resource_version: Option<String>,
}

/// A decision that has been written, or has not.
pub(super) struct Written {
    pub(super) name: String,
    pub(super) decision: Decision,
    /// Whose it is, for the log.
    pub(super) requester: String,
    pub(super) outcome: Result<(), WriteError>,
}

pub(super) enum WriteError {
    /// The request has changed or is gone: the watch tells.
    Outdated,
    Failed(String),
}

impl Judged {
    pub(super) fn of(csr: &CertificateSigningRequest) -> Self {
        Self {
            uid: csr.metadata.uid.clone(),
            resource_version: csr.metadata.resource_version.clone(),
        }
    }
}

/// Fails where the request is not the one that was decided on any more. What nobody has judged is only
/// ever denied.
pub(super) async fn write(
    api: Api<CertificateSigningRequest>,
    name: String,
    judged: Option<Judged>,
    decision: Decision,
) -> Written {
    let mut requester = String::new();
    let written = async {
        let csr = api.get(&name).await?;
        requester = printable(csr.spec.username.as_deref().unwrap_or_default());
        let is_same = judged.is_none_or(|judged| judged == Judged::of(&csr));
        if !is_same || Progress::of(&csr) != Progress::Pending {
            return Ok(false);
        }
        let (params, csr) = (PostParams::default(), decided(csr, &decision));
        api.replace_subresource("approval", &name, &params, &csr)
            .await?;
        Ok(true)
    };
    let outcome = match timeout(ANSWER_TIME, written).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(WriteError::Outdated),
        Ok(Err(error)) if is_status(&error, 409) || is_status(&error, 404) => {
            Err(WriteError::Outdated)
        }
        Ok(Err(error)) => Err(WriteError::Failed(describe(&error))),
        Err(_elapsed) => Err(WriteError::Failed(
            "the API server does not answer".to_owned(),
        )),
    };
    Written {
        name,
        decision,
        requester,
        outcome,
    }
}

/// The request with the decision among its conditions.
fn decided(mut csr: CertificateSigningRequest, decision: &Decision) -> CertificateSigningRequest {
    let (kind, reason, message) = match decision {
        Decision::Deny(denial) => (
            "Denied",
            "DeniedByCulvert",
            printable_up_to(&denial.to_string(), LONGEST_MESSAGE),
        ),
        Decision::Approve | Decision::Leave(_) => (
            "Approved",
            "ApprovedByCulvert",
            "the requester may have this certificate, and its names are right".to_owned(),
        ),
    };
    let status = csr
        .status
        .get_or_insert_with(CertificateSigningRequestStatus::default);
    status
        .conditions
        .get_or_insert_default()
        .push(CertificateSigningRequestCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            ..CertificateSigningRequestCondition::default()
        });
    csr
}
