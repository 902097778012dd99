//! Whom the cluster takes the holder of a client certificate for
//! (<https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates>).

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::{
    Purpose, Validity,
    usage::{WrongUsage, check_usage},
};
use crate::model::User;

/// A user, for as long as its certificate says.
#[derive(Clone, Debug)]
pub struct CertificateUser {
    /// Who it is.
    pub user: Arc<User>,
    validity: Validity,
}

/// Why a certificate proves no user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAUser {
    /// Not a certificate, or its subject is no text.
    #[error("the client certificate cannot be read")]
    Unreadable,
    /// It is no client's.
    #[error(transparent)]
    Usage(#[from] WrongUsage),
    /// Users are known by the common name.
    #[error("the client certificate has {0} common names (CN), and a user has one")]
    NotOneName(usize),
}

impl CertificateUser {
    /// The user of this certificate, which must have been verified before.
    pub fn of(leaf: &CertificateDer<'_>) -> Result<Self, NotAUser> {
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| NotAUser::Unreadable)?;
        check_usage(&certificate, Purpose::Client)?;
        let subject = certificate.subject();
        let names: Vec<_> = subject.iter_common_name().collect();
        let [name] = names[..] else {
            return Err(NotAUser::NotOneName(names.len()));
        };
        let name = name.as_str().map_err(|_| NotAUser::Unreadable)?;
        if name.is_empty() {
            return Err(NotAUser::NotOneName(0));
        }
        let groups: Result<Vec<_>, _> = subject
            .iter_organization()
            .map(|group| group.as_str().map(ToOwned::to_owned))
            .collect();
        let groups = groups.map_err(|_| NotAUser::Unreadable)?;
        Ok(Self {
            user: Arc::new(User::authenticated(name.to_owned(), groups)),
            validity: Validity::of(leaf).ok_or(NotAUser::Unreadable)?,
        })
    }

    /// Whether it proves nothing any more: connections outlive certificates.
    pub fn has_ended(&self, now: OffsetDateTime) -> bool {
        self.validity.has_ended(now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose};

    use super::*;
    use crate::pki::new_key;

    fn certificate(
        subject: &[(DnType, &str)],
        usage: ExtendedKeyUsagePurpose,
    ) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.extended_key_usages = vec![usage];
        params.not_after = OffsetDateTime::now_utc() + Duration::from_mins(1);
        let key = new_key().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn name_and_groups_are_those_of_the_subject_until_the_certificate_ends() {
        let subject = [
            (DnType::OrganizationName, "monitors"),
            (DnType::CommonName, "prometheus"),
        ];
        let found =
            CertificateUser::of(&certificate(&subject, ExtendedKeyUsagePurpose::ClientAuth))
                .unwrap();
        assert_eq!(found.user.name, "prometheus");
        assert_eq!(found.user.groups, ["monitors", "system:authenticated"]);
        let now = OffsetDateTime::now_utc();
        assert!(!found.has_ended(now) && found.has_ended(now + Duration::from_mins(2)));
    }

    #[test]
    fn a_servers_certificate_and_one_without_a_name_are_nobodys() {
        let named = [(DnType::CommonName, "prometheus")];
        let of_server =
            CertificateUser::of(&certificate(&named, ExtendedKeyUsagePurpose::ServerAuth));
        assert!(
            matches!(of_server, Err(NotAUser::Usage(_))),
            "{of_server:?}"
        );
        for (subject, count) in [
            (vec![(DnType::OrganizationName, "system:masters")], 0),
            (vec![(DnType::CommonName, "")], 0),
        ] {
            let found =
                CertificateUser::of(&certificate(&subject, ExtendedKeyUsagePurpose::ClientAuth));
            assert_eq!(found.unwrap_err(), NotAUser::NotOneName(count));
        }
    }
}
