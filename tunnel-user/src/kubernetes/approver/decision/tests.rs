//! Requests as the API server would hand them over, good and forged.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
};
use rcgen::{
    Attribute, BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, SanType,
};

mod proxy;
mod relay;

use super::*;
use crate::{
    kubernetes::{
        approver::csr_request::ALL_KINDS, certificates::kind::AGENT, certificates::request::Request,
    },
    model::{Node, PortSet},
    pki::{AGENT_SUBJECT, new_key},
};

const SERVER_USER: &str = "system:serviceaccount:kube-system:culvert-server";
const AGENT_USER: &str = "system:serviceaccount:kube-system:culvert-agent";
const YOUNG: Duration = Duration::from_secs(1);
const OLD: Duration = Duration::from_secs(61);

/// A request in the making; what is not changed is right.
struct Forge {
    params: CertificateParams,
    attributes: Vec<Attribute>,
    signer: &'static str,
    usages: Vec<&'static str>,
    username: &'static str,
    groups: Vec<&'static str>,
    pod_node: Option<Vec<&'static str>>,
    life: Option<i32>,
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn ip(address: &str) -> SanType {
    SanType::IpAddress(address.parse().unwrap())
}

impl Forge {
    /// Node `edge-1` with the kubelet's identity asks for its agent's certificate.
    fn agent() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = AGENT_SUBJECT.to_name();
        params.subject_alt_names = vec![dns("edge-1"), ip("10.0.0.1")];
        Self {
            params,
            attributes: Vec::new(),
            signer: AGENT.signer,
            usages: AGENT.usages.to_vec(),
            username: "system:node:edge-1",
            groups: vec!["system:nodes", "system:authenticated"],
            pod_node: None,
            life: Some(30 * 86_400),
        }
    }

    /// The agent's pod on `edge-1` asks.
    fn pod() -> Self {
        Self {
            username: AGENT_USER,
            groups: vec!["system:serviceaccounts", "system:authenticated"],
            pod_node: Some(vec!["edge-1"]),
            ..Self::agent()
        }
    }

    /// The server asks.
    fn server() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = SERVER.subject.to_name();
        params.subject_alt_names = vec![dns("tunnel.example"), ip("192.0.2.1")];
        Self {
            params,
            signer: SERVER.signer,
            usages: SERVER.usages.to_vec(),
            life: None,
            username: SERVER_USER,
            groups: vec!["system:serviceaccounts"],
            ..Self::agent()
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn names(self, names: Vec<SanType>) -> Self {
        self.with(|forge| forge.params.subject_alt_names = names)
    }

    fn pem(&self) -> String {
        let key = new_key().unwrap();
        let attributes = self.attributes.clone();
        let request = self
            .params
            .serialize_request_with_attributes(&key, attributes);
        request.unwrap().pem().unwrap()
    }

    fn csr(&self, request: String) -> CertificateSigningRequest {
        let strings = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let extra = self.pod_node.as_ref().map(|node| {
            let key = "authentication.kubernetes.io/node-name".to_owned();
            BTreeMap::from([(key, strings(node))])
        });
        CertificateSigningRequest {
            spec: CertificateSigningRequestSpec {
                request: ByteString(request.into_bytes()),
                signer_name: self.signer.to_owned(),
                usages: Some(strings(&self.usages)),
                username: Some(self.username.to_owned()),
                groups: Some(strings(&self.groups)),
                extra,
                expiration_seconds: self.life,
                ..CertificateSigningRequestSpec::default()
            },
            ..CertificateSigningRequest::default()
        }
    }

    fn csr_request(&self) -> Option<CsrRequest> {
        CsrRequest::read(&self.csr(self.pem()), ALL_KINDS)
    }

    fn decided(&self, age: Duration) -> Decision {
        let csr_request = self.csr_request().expect("a request of ours");
        known(|knowledge| decide(&csr_request, age, knowledge))
    }

    /// What becomes of it in the end.
    fn end(&self) -> Decision {
        self.decided(OLD)
    }
}

/// What the approver knows: `edge-1`, `edge-2`, the server's user and names.
fn known<T>(then: impl FnOnce(&Knowledge<'_>) -> T) -> T {
    let node = |name: &str, addresses: &[&str]| Node {
        name: name.parse().unwrap(),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        extra_ports: PortSet::new(),
        closed_gate: None,
        admits: None,
    };
    let nodes = [
        node("edge-1", &["10.0.0.1", "fd00::1"]),
        node("edge-2", &["10.0.0.2"]),
    ];
    let names = CertificateNames {
        dns: [
            "tunnel.example".to_owned(),
            "tunnel.kube-system.svc".to_owned(),
        ]
        .into(),
        ips: ["192.0.2.1".parse().unwrap(), "::1".parse().unwrap()].into(),
    };
    then(&Knowledge {
        snapshot: &Snapshot::new(nodes, PortSet::new()),
        own_user: Some(SERVER_USER),
        names: Some(&names),
        agents: &"kube-system/culvert-agent".parse().unwrap(),
        relays: &"kube-system/culvert-relay".parse().unwrap(),
        longest_life: Duration::from_hours(30 * 24),
    })
}

fn subject(attributes: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, value) in attributes {
        name.push(kind.clone(), *value);
    }
    name
}

fn denied_because(forge: &Forge, expected: &str) {
    match forge.end() {
        Decision::Deny(denial) => {
            let reason = denial.to_string();
            assert!(reason.contains(expected), "{reason:?} lacks {expected:?}");
        }
        other => panic!("{other:?} instead of a denial with {expected:?}"),
    }
}

#[test]
fn what_is_right_is_approved() {
    let both = vec![dns("edge-1"), ip("10.0.0.1"), ip("fd00::1")];
    let mapped = vec![dns("edge-1"), ip("::ffff:10.0.0.1")];
    let one_name = vec![dns("tunnel.example")];
    for right in [
        Forge::agent(),
        Forge::agent().names(both),
        Forge::agent().names(mapped),
        Forge::agent().with(|forge| forge.usages.reverse()),
        Forge::pod(),
        Forge::server(),
        Forge::server().names(one_name),
    ] {
        assert_eq!(right.end(), Decision::Approve);
    }
}

#[test]
fn what_servers_and_agents_ask_for_is_approved() {
    let key = new_key().unwrap();
    let names = |dns: &str, ips: &[&str]| CertificateNames {
        dns: [dns.to_owned()].into(),
        ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
    };
    let agent = names("edge-1", &["10.0.0.1", "fd00::1"]);
    let server = names("tunnel.example", &["192.0.2.1", "::1"]);
    let month = Duration::from_hours(30 * 24);
    for (kind, names, life, asks) in [
        (&AGENT, agent, Some(month), Forge::agent()),
        (&SERVER, server, None, Forge::server()),
    ] {
        let request = Request {
            kind,
            names: &names,
            key: &key,
            life,
        };
        let mut csr = request.to_csr(request.name()).unwrap();
        csr.spec.username = Some(asks.username.to_owned());
        csr.spec.groups = Some(asks.groups.iter().map(ToString::to_string).collect());
        let csr_request = CsrRequest::read(&csr, ALL_KINDS).unwrap();
        let decided = known(|knowledge| decide(&csr_request, OLD, knowledge));
        assert_eq!(decided, Decision::Approve);
    }
}

#[test]
fn a_request_larger_than_any_right_one_is_denied_and_its_names_are_not_kept() {
    for count in [65, 3000] {
        let mut forge = Forge::agent();
        let addresses = (0..count).map(|n| IpAddr::V4((0x0a00_0000 + n).into()));
        let names = &mut forge.params.subject_alt_names;
        names.extend(addresses.map(SanType::IpAddress));
        let csr_request = forge.csr_request().unwrap();
        assert!(csr_request.names.is_none(), "{count}");
        denied_because(&forge, "larger than any request");
    }
    let mut forge = Forge::agent();
    forge.params.subject_alt_names.truncate(2);
    assert_eq!(forge.end(), Decision::Approve);
}

#[test]
fn only_the_node_itself_gets_its_name() {
    let requesters: [(_, Vec<_>, Option<Vec<_>>); 9] = [
        ("system:node:edge-2", vec!["system:nodes"], None),
        // The group is what the node authoriser goes by.
        ("system:node:edge-1", vec!["system:authenticated"], None),
        ("system:node:edge-1x", vec!["system:nodes"], None),
        ("kubernetes-admin", vec!["system:masters"], None),
        ("tunnel-agent-client", vec!["openyurt:yurttunnel"], None),
        (
            "system:serviceaccount:default:culvert-agent",
            vec![],
            Some(vec!["edge-1"]),
        ),
        (AGENT_USER, vec![], Some(vec!["edge-2"])),
        (AGENT_USER, vec![], Some(vec!["edge-1", "edge-2"])),
        ("", vec![], None),
    ];
    for (username, groups, pod_node) in requesters {
        let forge = Forge {
            username,
            groups,
            pod_node,
            ..Forge::agent()
        };
        denied_because(&forge, "may not ask for the certificate of node edge-1");
    }
    // A stolen node name does not help without its addresses either.
    let stolen = Forge::agent().names(vec![dns("edge-1"), ip("10.0.0.2")]);
    denied_because(
        &stolen,
        "node edge-1 does not have these addresses: 10.0.0.2",
    );
}

#[test]
fn names_that_are_not_the_nodes_are_denied() {
    let own = || vec![dns("edge-1"), ip("10.0.0.1")];
    let and = |more: SanType| own().into_iter().chain([more]).collect::<Vec<_>>();
    for (names, expected) in [
        (and(dns("edge-2")), "this one names 2"),
        (and(dns("edge-1")), "this one names 2"),
        (vec![ip("10.0.0.1")], "this one names 0"),
        (vec![dns("*"), ip("10.0.0.1")], "not the name of a node"),
        (
            vec![dns("EDGE-1"), ip("10.0.0.1")],
            "not the name of a node",
        ),
        (vec![dns("edge-1")], "no address"),
        (and(ip("10.0.0.2")), "10.0.0.2"),
        (and(ip("127.0.0.1")), "127.0.0.1"),
        (
            and(SanType::URI("spiffe://x".try_into().unwrap())),
            "neither host names",
        ),
        (
            and(SanType::Rfc822Name("a@b.c".try_into().unwrap())),
            "neither host names",
        ),
        (vec![], "this one names 0"),
    ] {
        denied_because(&Forge::agent().names(names), expected);
    }
}

#[test]
fn a_subject_that_is_more_or_less_than_ours_is_denied() {
    let (cn, o) = (DnType::CommonName, DnType::OrganizationName);
    for attributes in [
        vec![(cn.clone(), "tunnel-agent-client")],
        vec![
            (cn.clone(), "tunnel-agent-client"),
            (o.clone(), "system:masters"),
        ],
        vec![
            (cn.clone(), "tunnel-agent-client"),
            (o.clone(), "system:nodes"),
        ],
        vec![
            (cn.clone(), "tunnel-agent-client"),
            (o.clone(), "openyurt:yurttunnel"),
            (DnType::OrganizationalUnitName, "system:masters"),
        ],
    ] {
        let forge = Forge::agent().with(|f| f.params.distinguished_name = subject(&attributes));
        denied_because(
            &forge,
            "exactly CN=tunnel-agent-client, O=openyurt:yurttunnel",
        );
    }
    let forge = Forge::server().with(|f| {
        let server = [(cn, SERVER.subject.common_name), (o, "system:masters")];
        f.params.distinguished_name = subject(&server);
    });
    denied_because(
        &forge,
        "exactly CN=system:node:tunnel-server, O=system:nodes",
    );
}

#[test]
fn usages_beyond_or_below_ours_are_denied() {
    for usages in [
        vec!["client auth", "digital signature"],
        vec![
            "client auth",
            "digital signature",
            "key encipherment",
            "server auth",
        ],
        vec!["digital signature", "key encipherment", "server auth"],
        vec![
            "client auth",
            "digital signature",
            "key encipherment",
            "cert sign",
        ],
        vec!["any"],
        vec![],
    ] {
        denied_because(
            &Forge {
                usages,
                ..Forge::agent()
            },
            "usages must be exactly",
        );
    }
    let usages = AGENT.usages.to_vec();
    denied_because(
        &Forge {
            usages,
            ..Forge::server()
        },
        "server auth",
    );
}

#[test]
fn an_agents_certificate_has_an_end_that_is_not_left_to_the_signer() {
    let asks = |life| Forge {
        life,
        ..Forge::agent()
    };
    assert_eq!(asks(Some(600)).end(), Decision::Approve);
    for life in [None, Some(30 * 86_400 + 1), Some(i32::MAX)] {
        denied_because(&asks(life), "at most 30days");
    }
    let server = Forge::server();
    assert_eq!(server.end(), Decision::Approve, "its life is the signer's");
}

#[test]
fn a_request_for_more_than_names_is_denied() {
    let ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let oid = [1, 3, 6, 1, 4, 1, 311, 20, 2];
    let custom = CustomExtension::from_oid_content(&oid, vec![0x05, 0x00]);
    let client_auth = ExtendedKeyUsagePurpose::ClientAuth;
    let second = Attribute {
        oid: &[1, 2, 840, 113_549, 1, 9, 7],
        values: vec![0x31, 0x03, 0x0c, 0x01, 0x61],
    };
    for forge in [
        Forge::agent().with(|f| f.params.is_ca = ca),
        Forge::agent().with(|f| f.params.custom_extensions = vec![custom]),
        Forge::server().with(|f| f.params.extended_key_usages = vec![client_auth]),
        Forge::agent().with(|f| f.attributes = vec![second]),
        Forge::server().with(|f| f.params.is_ca = ca),
    ] {
        denied_because(&forge, "more than names");
    }
}

#[test]
fn only_the_server_gets_its_name_and_only_its_own_names() {
    for username in ["system:node:edge-1", AGENT_USER, "kubernetes-admin"] {
        let forge = Forge {
            username,
            ..Forge::server()
        };
        denied_because(&forge, "only the server itself");
    }
    let more = vec![dns("tunnel.example"), dns("kubernetes.default.svc")];
    denied_because(&Forge::server().names(more), "kubernetes.default.svc");
    let more = vec![dns("tunnel.example"), ip("10.96.0.1")];
    denied_because(&Forge::server().names(more), "10.96.0.1");
    denied_because(&Forge::server().names(vec![]), "no name");
}

#[test]
fn what_is_not_ours_is_not_touched() {
    let kubelet = [
        (DnType::CommonName, "system:node:edge-1"),
        (DnType::OrganizationName, "system:nodes"),
    ];
    for forge in [
        Forge {
            signer: "example.com/signer",
            ..Forge::agent()
        },
        Forge {
            signer: "kubernetes.io/kube-apiserver-client-kubelet",
            ..Forge::agent()
        },
        // Each subject with the other's signer.
        Forge {
            signer: SERVER.signer,
            ..Forge::agent()
        },
        Forge {
            signer: AGENT.signer,
            ..Forge::server()
        },
        Forge::server().with(|f| f.params.distinguished_name = subject(&kubelet)),
        Forge::agent().with(|f| f.params.distinguished_name = subject(&[])),
    ] {
        assert!(
            forge.csr_request().is_none(),
            "{:?}",
            forge.params.distinguished_name
        );
    }
}

#[test]
fn what_cannot_be_read_in_one_way_only_is_not_touched() {
    let forge = Forge::agent();
    let pem = forge.pem();
    assert!(CsrRequest::read(&forge.csr(format!("\n{pem}\n")), ALL_KINDS).is_some());
    let other = Forge::server().pem();
    let label = |label| pem.replace("CERTIFICATE REQUEST", label);
    let der = pem::parse(&pem).unwrap().into_contents();
    let longer = [&der[..], &[0]].concat();
    for text in [
        String::new(),
        "garbage".to_owned(),
        format!("{pem}{other}"),
        format!("before\n{pem}"),
        pem.replace(
            "-----BEGIN CERTIFICATE REQUEST-----\n",
            "-----BEGIN CERTIFICATE REQUEST-----\nKey: value\n\n",
        ),
        label("CERTIFICATE"),
        label("NEW CERTIFICATE REQUEST"),
        pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", longer)),
        pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", &der[..der.len() / 2])),
    ] {
        assert!(
            CsrRequest::read(&forge.csr(text.clone()), ALL_KINDS).is_none(),
            "{text}"
        );
    }
}

#[test]
fn what_may_become_right_is_left_pending() {
    let unknown = Forge {
        username: "system:node:edge-3",
        ..Forge::agent().names(vec![dns("edge-3"), ip("10.0.0.3")])
    };
    assert!(matches!(
        unknown.end(),
        Decision::Leave(PendingReason::UnknownNode(_))
    ));

    let unbound = Forge {
        pod_node: None,
        ..Forge::pod()
    };
    assert!(matches!(
        unbound.end(),
        Decision::Leave(PendingReason::PodWithoutNode(_))
    ));

    let new_address = Forge::agent().names(vec![dns("edge-1"), ip("10.0.0.9")]);
    assert!(matches!(
        new_address.decided(YOUNG),
        Decision::Leave(PendingReason::Addresses { .. })
    ));
    assert!(matches!(
        new_address.decided(OLD),
        Decision::Deny(Denial::Addresses { .. })
    ));

    let new_name = Forge::server().names(vec![dns("new.example")]);
    assert!(matches!(
        new_name.decided(YOUNG),
        Decision::Leave(PendingReason::Names(_))
    ));
    assert!(matches!(
        new_name.decided(OLD),
        Decision::Deny(Denial::Names(_))
    ));
}

#[test]
fn the_servers_request_waits_until_the_leader_knows_itself() {
    let csr_request = Forge::server().csr_request().unwrap();
    known(|all| {
        let nobody = Knowledge {
            own_user: None,
            ..*all
        };
        assert_eq!(
            decide(&csr_request, OLD, &nobody),
            Decision::Leave(PendingReason::OwnUser)
        );
        let nameless = Knowledge {
            names: None,
            ..*all
        };
        assert_eq!(
            decide(&csr_request, OLD, &nameless),
            Decision::Leave(PendingReason::NoNames)
        );
    });
}
