use super::*;
use crate::{
    model::{Admits, NodeNetwork},
    standalone::testing::{TestState, now},
};

const TTL: Duration = Duration::from_hours(24);

/// A key, and a request for it as it travels.
fn key_and_csr() -> (rcgen::KeyPair, Vec<u8>) {
    let key = crate::pki::new_key().unwrap();
    let csr = crate::pki::request(&key).unwrap();
    (key, csr)
}

struct Case {
    test: TestState,
    node_networks: NodeNetworks,
}

impl Case {
    fn new() -> Self {
        Self {
            test: TestState::new(),
            node_networks: NodeNetworks::default(),
        }
    }

    fn admission(&self) -> Admission<'_> {
        Admission {
            state: &self.test.state,
            certificate_ttl: TTL,
            node_networks: &self.node_networks,
            is_server_address: &|address| address == "10.9.9.9".parse::<IpAddr>().unwrap(),
        }
    }

    fn enrol(
        &self,
        token: &str,
        node: &str,
        csr_der: &[u8],
        proposed: &[&str],
    ) -> Result<Issued, Refused> {
        let proposed: Vec<IpAddr> = proposed.iter().map(|ip| ip.parse().unwrap()).collect();
        let asked = Enrolling {
            token,
            node: &node.parse().unwrap(),
            csr_der,
            proposed: &proposed,
        };
        self.admission().enrol(&asked, now())
    }

    fn enrolled(&self, node: &str, address: &str) -> Issued {
        let token = self.test.token(node, &[address]);
        let (_, csr) = key_and_csr();
        self.enrol(&token.reveal(), node, &csr, &[]).unwrap()
    }
}

/// The text that the caller gets; it must name a way out.
fn text(result: Result<Issued, Refused>) -> String {
    let text = result.expect_err("refused").to_string();
    assert!(text.contains("culvert "), "no way out in: {text}");
    text
}

#[test]
fn the_certificate_names_what_the_token_names_and_the_enrolment() {
    let case = Case::new();
    let token = case.test.token("edge-1", &["10.0.0.1", "fd00::1"]);
    let (_, csr) = key_and_csr();
    let issued = case
        .enrol(&token.reveal(), "edge-1", &csr, &["10.0.0.7"])
        .unwrap();
    let identity = agent_identity(&issued.certificate, AgentProof::Enrolment).unwrap();
    assert_eq!(identity, issued.identity);
    assert_eq!(identity.node.as_str(), "edge-1");
    assert_eq!(
        identity.addresses,
        ["10.0.0.1", "fd00::1"].map(|ip| ip.parse::<IpAddr>().unwrap())
    );
    assert_eq!(identity.key.as_str(), token.id().as_str());
    let node = &case.test.state.registrations().unwrap()[0].node();
    assert_eq!(node.admits, Some(Admits::Enrolment(identity.key)));
}

#[test]
fn an_address_outside_of_the_nodes_networks_is_refused_and_the_flag_is_named() {
    let mut case = Case::new();
    let network = "10.78.0.0/16".parse::<NodeNetwork>().unwrap();
    case.node_networks = [network].into_iter().collect();
    let (_, csr) = key_and_csr();
    let named = case.test.token("edge-1", &["10.79.0.1"]);
    let refused = text(case.enrol(&named.reveal(), "edge-1", &csr, &[]));
    assert!(refused.contains("10.79.0.1 is in none of"), "{refused}");
    let chosen = case.test.token("edge-2", &[]);
    let refused = text(case.enrol(&chosen.reveal(), "edge-2", &csr, &["10.79.0.2"]));
    assert!(refused.contains("--node-networks"), "{refused}");
    let proposed = ["10.79.0.2", "10.78.0.2"];
    let issued = case
        .enrol(&chosen.reveal(), "edge-2", &csr, &proposed)
        .unwrap();
    assert_eq!(
        issued.identity.addresses,
        ["10.78.0.2".parse::<IpAddr>().unwrap()]
    );
}

#[test]
fn unknown_id_and_wrong_secret_sound_the_same() {
    let case = Case::new();
    let token = case.test.token("edge-1", &["10.0.0.1"]);
    let (_, csr) = key_and_csr();
    let wrong_secret = format!("{}.aaaaaaaaaaaaaaaaaaaaaaaaaa", token.id());
    let texts = [
        "aaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaa",
        &wrong_secret,
        "rubbish",
    ]
    .map(|token| text(case.enrol(token, "edge-1", &csr, &[])));
    assert!(
        texts[0].contains("not valid on this server"),
        "{}",
        texts[0]
    );
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
}

#[test]
fn the_same_key_gets_its_lost_answer_and_another_gets_nothing() {
    let case = Case::new();
    let token = case.test.token("edge-1", &["10.0.0.1"]).reveal();
    let (_, first) = key_and_csr();
    let (_, other) = key_and_csr();
    case.enrol(&token, "edge-1", &first, &[]).unwrap();
    let again = case.enrol(&token, "edge-1", &first, &[]).unwrap();
    assert_eq!(again.identity.node.as_str(), "edge-1");
    assert!(text(case.enrol(&token, "edge-1", &other, &[])).contains("already used"));
}

#[test]
fn a_token_for_another_node_is_refused_and_stays_unused() {
    let case = Case::new();
    let token = case.test.token("edge-1", &["10.0.0.1"]).reveal();
    let (_, csr) = key_and_csr();
    let refused = text(case.enrol(&token, "edge-2", &csr, &[]));
    assert!(refused.contains("enrols node edge-1") && refused.contains("--node-name edge-1"));
    let (_, other) = key_and_csr();
    case.enrol(&token, "edge-1", &other, &[]).unwrap();
}

#[test]
fn expired_and_revoked_tokens_say_so() {
    let case = Case::new();
    let token = case.test.token("edge-1", &["10.0.0.1"]);
    let (_, csr) = key_and_csr();
    let asked = Enrolling {
        token: &token.reveal(),
        node: &"edge-1".parse().unwrap(),
        csr_der: &csr,
        proposed: &[],
    };
    let late = now() + Duration::from_hours(2);
    assert!(text(case.admission().enrol(&asked, late)).contains("expired at"));
    case.test.state.revoke_token(token.id()).unwrap();
    assert!(text(case.admission().enrol(&asked, now())).contains("revoked"));
}

#[test]
fn addresses_are_the_agents_own_where_the_token_names_none() {
    let case = Case::new();
    case.enrolled("other", "10.0.0.2");
    let token = case.test.token("edge-1", &[]).reveal();
    let (_, csr) = key_and_csr();
    let refused = text(case.enrol(
        &token,
        "edge-1",
        &csr,
        &["127.0.0.1", "10.0.0.2", "10.9.9.9"],
    ));
    for part in [
        "loopback",
        "belongs to node other",
        "server itself",
        "--address",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    let issued = case
        .enrol(&token, "edge-1", &csr, &["127.0.0.1", "10.0.0.1"])
        .unwrap();
    assert_eq!(
        issued.identity.addresses,
        ["10.0.0.1".parse::<IpAddr>().unwrap()]
    );
}

#[test]
fn an_address_that_another_node_got_since_is_refused() {
    let case = Case::new();
    let token = case.test.token("edge-1", &["10.0.0.1"]).reveal();
    case.enrolled("faster", "10.0.0.1");
    let (_, csr) = key_and_csr();
    let refused = text(case.enrol(&token, "edge-1", &csr, &[]));
    assert!(
        refused.contains("10.0.0.1 belongs to node faster"),
        "{refused}"
    );
}

#[test]
fn a_renewal_keeps_the_enrolment_and_takes_a_new_key() {
    let case = Case::new();
    let issued = case.enrolled("edge-1", "10.0.0.1");
    let (_, csr) = key_and_csr();
    let renewed = case
        .admission()
        .renew(Some(&issued.certificate), &csr, now())
        .unwrap();
    assert_eq!(renewed.identity, issued.identity);
    assert_ne!(renewed.certificate, issued.certificate);
}

#[test]
fn a_renewal_needs_a_certificate_that_still_counts() {
    let case = Case::new();
    let admission = case.admission();
    let (_, csr) = key_and_csr();
    assert!(
        admission
            .renew(None, &csr, now())
            .unwrap_err()
            .to_string()
            .contains("token")
    );

    let old = case.enrolled("edge-1", "10.0.0.1").certificate;
    let late = now() + TTL + Duration::from_secs(1);
    assert!(text(admission.renew(Some(&old), &csr, late)).contains("expired"));

    let new = case.enrolled("edge-1", "10.0.0.1").certificate;
    assert!(text(admission.renew(Some(&old), &csr, now())).contains("enrolled anew"));
    admission.renew(Some(&new), &csr, now()).unwrap();

    assert!(
        case.test
            .state
            .remove_node(&"edge-1".parse().unwrap())
            .unwrap()
    );
    assert!(text(admission.renew(Some(&new), &csr, now())).contains("not registered"));
}

#[test]
fn an_older_token_cannot_take_a_node_back_from_a_newer_one() {
    let case = Case::new();
    let (_, first_csr) = key_and_csr();
    let (_, second_csr) = key_and_csr();
    let first = case.test.token("edge-1", &["10.0.0.1"]).reveal();
    let second = case.test.token("edge-1", &["10.0.0.1"]).reveal();
    case.enrol(&first, "edge-1", &first_csr, &[]).unwrap();
    case.enrol(&second, "edge-1", &second_csr, &[]).unwrap();
    assert!(text(case.enrol(&first, "edge-1", &first_csr, &[])).contains("enrolled anew"));
}

#[test]
fn names_in_the_request_count_for_nothing() {
    let case = Case::new();
    let key = crate::pki::new_key().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["victim".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let greedy = params.serialize_request(&key).unwrap();
    let csr = greedy.der().to_vec();
    let token = case.test.token("edge-1", &["10.0.0.1"]).reveal();
    let issued = case.enrol(&token, "edge-1", &csr, &[]).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&issued.certificate).unwrap();
    assert!(!parsed.is_ca());
    let identity = agent_identity(&issued.certificate, AgentProof::Enrolment).unwrap();
    assert_eq!(identity.node.as_str(), "edge-1");
}

#[test]
fn a_request_that_was_tampered_with_is_refused() {
    let (key, _) = key_and_csr();
    let mut der = crate::pki::request(&key).unwrap();
    let last = der.len() - 1;
    der[last] ^= 1;
    assert!(AgentCsr::from_der(&der).is_err());
    assert!(AgentCsr::from_der(b"rubbish").is_err());
}

#[test]
fn a_damaged_token_file_is_the_servers_fault_and_named_in_its_error() {
    let case = Case::new();
    let token = case.test.token("edge-1", &["10.0.0.1"]);
    let file = case.test.state.tokens.file(&format!("{}.json", token.id()));
    std::fs::write(&file, "{").unwrap();
    let (_, csr) = key_and_csr();
    let error = case
        .enrol(&token.reveal(), "edge-1", &csr, &[])
        .unwrap_err();
    assert!(matches!(error, Refused::State(_)));
    assert!(
        error.to_string().contains(file.to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn a_guessed_token_costs_neither_the_lock_nor_a_signature() {
    let case = Case::new();
    let _taken = case.test.state.lock().unwrap();
    let refused = text(case.enrol("aaaaaaaaaa.a", "edge-1", b"no request", &[]));
    assert!(refused.contains("not valid on this server"), "{refused}");
}

#[test]
fn a_damaged_request_leaves_the_token_unused() {
    let case = Case::new();
    let token = case.test.token("edge-1", &["10.0.0.1"]).reveal();
    let refused = case.enrol(&token, "edge-1", b"no request", &[]);
    assert!(matches!(refused, Err(Refused::Request(_))), "{refused:?}");
    let (_, csr) = key_and_csr();
    case.enrol(&token, "edge-1", &csr, &[]).unwrap();
}

#[test]
fn a_token_does_not_make_the_server_a_node() {
    let case = Case::new();
    let token = case.test.token("edge-1", &["10.9.9.9"]).reveal();
    let (_, csr) = key_and_csr();
    let refused = text(case.enrol(&token, "edge-1", &csr, &[]));
    assert!(
        refused.contains("an address of the server itself"),
        "{refused}"
    );
}
