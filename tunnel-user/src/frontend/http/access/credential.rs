//! What a client shows to say who it is: a certificate when it connects, or a token with each request.

use std::sync::Arc;

use http::{HeaderMap, header::AUTHORIZATION};
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use crate::{
    frontend::http::refusal::Refusal,
    pki::{CertificateUser, NotAUser},
};

/// What the connection itself proves.
#[derive(Clone, Debug, Default)]
pub(in crate::frontend) enum Proof {
    /// Nothing.
    #[default]
    None,
    /// That it is this user's, by a certificate that was verified, until its CA is trusted no longer.
    User(Arc<CertificateUser>, CancellationToken),
    /// Nothing, though there is such a certificate.
    NotAUser(NotAUser),
}

/// Why a request is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::frontend::http) enum Unproved {
    #[error("the request shows no credential")]
    NoCredential,
    #[error("Authorization is not a bearer token")]
    NotBearer,
    #[error("the bearer token is nobody's, or has ended")]
    Token,
    #[error("{0}")]
    Certificate(NotAUser),
    #[error("the client certificate has ended")]
    CertificateEnded,
    #[error("a CA of clients is trusted no longer: connect anew")]
    CaWithdrawn,
}

impl Proof {
    /// By the certificate that a client has shown, if any; `withdrawn` is cancelled once that counts no longer.
    pub(in crate::frontend) fn of(
        leaf: Option<&CertificateDer<'_>>,
        withdrawn: &CancellationToken,
    ) -> Self {
        match leaf.map(CertificateUser::of) {
            None => Self::None,
            Some(Ok(user)) => Self::User(Arc::new(user), withdrawn.clone()),
            Some(Err(why)) => Self::NotAUser(why),
        }
    }
}

/// The bearer token (RFC 6750, 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Unproved::NoCredential)?;
    if values.next().is_some() {
        return Err(Refusal::Twice("Authorization"));
    }
    let value = value.to_str().map_err(|_| Unproved::NotBearer)?;
    let (scheme, token) = value.split_once(' ').ok_or(Unproved::NotBearer)?;
    let token = token.trim();
    let is_token = scheme.eq_ignore_ascii_case("bearer")
        && !token.is_empty()
        && token.bytes().all(|byte| byte.is_ascii_graphic());
    if is_token {
        Ok(token)
    } else {
        Err(Unproved::NotBearer.into())
    }
}

impl From<Unproved> for Refusal {
    fn from(why: Unproved) -> Self {
        Self::Unauthenticated(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(values: &[&str]) -> Result<String, Refusal> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        bearer(&headers).map(ToOwned::to_owned)
    }

    #[test]
    fn a_bearer_token_is_one_word_of_one_field() {
        for value in [
            "Bearer abc.d-e_f",
            "bearer abc.d-e_f",
            "BEARER   abc.d-e_f ",
        ] {
            assert_eq!(found(&[value]).as_deref(), Ok("abc.d-e_f"), "{value:?}");
        }
        for value in ["Basic YTpi", "Bearer", "Bearer ", "abc", "", "Bearer a b"] {
            assert_eq!(
                found(&[value]),
                Err(Unproved::NotBearer.into()),
                "{value:?}"
            );
        }
        assert_eq!(found(&[]), Err(Unproved::NoCredential.into()));
        let twice = found(&["Bearer a", "Bearer b"]);
        assert_eq!(twice, Err(Refusal::Twice("Authorization")));
    }
}
