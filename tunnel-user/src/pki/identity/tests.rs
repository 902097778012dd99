use std::time::Duration;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, SanType};
use time::OffsetDateTime;

use super::*;
use crate::pki::{AgentCsr, Ca, Validity, new_key, request};

fn self_signed(names: Vec<SanType>) -> (CertificateDer<'static>, SubjectKey) {
    self_signed_by(rcgen::DistinguishedName::new(), names)
}

fn self_signed_by(
    subject: rcgen::DistinguishedName,
    names: Vec<SanType>,
) -> (CertificateDer<'static>, SubjectKey) {
    let key = new_key().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    params.subject_alt_names = names;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
    let certificate = params.self_signed(&key).unwrap();
    (certificate.der().clone(), SubjectKey::of(&spki))
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

#[test]
fn an_issued_certificate_proves_exactly_what_it_was_issued_for() {
    let now = OffsetDateTime::now_utc();
    let ca = Ca::generate(now).unwrap();
    let csr = AgentCsr::from_der(&request(&new_key().unwrap()).unwrap()).unwrap();
    let identity = AgentIdentity {
        node: "edge-1.example".parse().unwrap(),
        addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        key: "abcdefghij".into(),
    };
    let life = Validity::starting(now, Duration::from_hours(1));
    let certificate = ca.issue_agent(&csr, &identity, life).unwrap();
    assert_eq!(
        agent_identity(&certificate, AgentProof::Enrolment),
        Ok(identity)
    );
    assert_eq!(Validity::of(&certificate), Some(life));
}

#[test]
fn a_certificate_that_does_not_say_it_is_a_clients_proves_nobody() {
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
    for (usages, proves) in [
        (vec![], false),
        (vec![Any], false),
        (vec![ServerAuth], false),
        (vec![CodeSigning], false),
        (vec![ClientAuth], true),
    ] {
        let key = new_key().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![dns("edge-1")];
        params.extended_key_usages.clone_from(&usages);
        let certificate = params.self_signed(&key).unwrap();
        let proved = agent_identity(certificate.der(), AgentProof::Enrolment);
        assert_eq!(proved.is_ok(), proves, "{usages:?}: {proved:?}");
    }
}

#[test]
fn a_certificate_without_an_enrolment_is_known_by_its_key() {
    let uri = SanType::URI("https://elsewhere".try_into().unwrap());
    let (certificate, key) = self_signed(vec![dns("edge-1"), uri]);
    let identity = agent_identity(&certificate, AgentProof::Enrolment).unwrap();
    assert_eq!(identity.key.as_str(), key.to_string());
}

#[test]
fn a_certificate_that_names_no_node_several_or_none_that_can_be_is_refused() {
    let refusal = |names| agent_identity(&self_signed(names).0, AgentProof::Enrolment).unwrap_err();
    assert_eq!(refusal(vec![]), UnprovedIdentity::NotOneNode(0));
    let two = vec![dns("edge-1"), dns("edge-2")];
    assert_eq!(refusal(two), UnprovedIdentity::NotOneNode(2));
    let wild = refusal(vec![dns("*.example")]);
    assert!(matches!(wild, UnprovedIdentity::NodeName(_)), "{wild:?}");
    let rubbish = CertificateDer::from(b"rubbish".to_vec());
    assert_eq!(
        agent_identity(&rubbish, AgentProof::Enrolment),
        Err(UnprovedIdentity::Unreadable)
    );
}

#[test]
fn in_a_cluster_only_the_agents_subject_proves_an_agent_and_the_node_is_its_identity() {
    let names = || {
        vec![
            dns("edge-1"),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
        ]
    };
    let proved = |subject| {
        agent_identity(
            &self_signed_by(subject, names()).0,
            AgentProof::ClusterSubject,
        )
    };
    let expected = AgentIdentity {
        node: "edge-1".parse().unwrap(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        key: "edge-1".into(),
    };
    assert_eq!(proved(AGENT_SUBJECT.to_name()), Ok(expected));

    let name = |attributes: &[(DnType, &str)]| {
        let mut name = rcgen::DistinguishedName::new();
        for (kind, value) in attributes {
            name.push(kind.clone(), *value);
        }
        name
    };
    let (cn, o) = (DnType::CommonName, DnType::OrganizationName);
    for foreign in [
        name(&[
            (cn.clone(), "system:node:edge-1"),
            (o.clone(), "system:nodes"),
        ]),
        name(&[
            (cn.clone(), "kubernetes-admin"),
            (o.clone(), "system:masters"),
        ]),
        name(&[(cn.clone(), "tunnel-agent-client")]),
        name(&[(o.clone(), "openyurt:yurttunnel")]),
        name(&[
            (cn.clone(), "tunnel-agent-client"),
            (o.clone(), "system:nodes"),
        ]),
        name(&[
            (cn, "tunnel-agent-client"),
            (o, "openyurt:yurttunnel"),
            (DnType::OrganizationalUnitName, "more"),
        ]),
        name(&[]),
    ] {
        let refusal = proved(foreign.clone()).unwrap_err();
        assert!(
            matches!(refusal, UnprovedIdentity::NotAnAgent(_)),
            "{foreign:?}: {refusal:?}"
        );
    }
}
