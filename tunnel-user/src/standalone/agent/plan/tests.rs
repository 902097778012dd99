use std::time::Duration;

use super::*;
use crate::{
    pki::{Ca, Credential, Validity},
    standalone::testing::{key_and_csr, now},
};

const DAY: Duration = Duration::from_hours(24);
const TOKEN: &str = "aaaaaaaaaa.secret";
const OTHER_TOKEN: &str = "bbbbbbbbbb.secret";

/// The identity of edge-1, enrolled with [`TOKEN`].
fn stored(ca: &Ca) -> StoredIdentity {
    let (key, csr) = key_and_csr();
    let identity = crate::model::AgentIdentity {
        node: "edge-1".parse().unwrap(),
        addresses: vec![],
        key: "aaaaaaaaaa".into(),
    };
    let leaf = ca
        .issue_agent(&csr, &identity, Validity::starting(now(), DAY))
        .unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let chain = vec![leaf, ca.certificate().clone()];
    StoredIdentity::of(&Credential::new(key.into(), chain).unwrap()).unwrap()
}

fn decide(
    stored: Option<Result<StoredIdentity, Unusable>>,
    node: &str,
    token: Option<&str>,
    pin: Option<CaPin>,
    now: OffsetDateTime,
) -> Result<Plan, NoIdentity> {
    let token: Option<JoinToken> = token.map(|token| token.parse().unwrap());
    let asked = Asked {
        node: &node.parse().unwrap(),
        token: token.as_ref().map(Ok),
        pin,
    };
    plan(stored, asked, now)
}

#[test]
fn a_good_identity_serves_with_or_without_the_token_that_made_it() {
    let ca = Ca::generate(now()).unwrap();
    for token in [None, Some(TOKEN)] {
        for pin in [None, Some(ca.pin())] {
            let plan = decide(Some(Ok(stored(&ca))), "edge-1", token, pin, now()).unwrap();
            assert!(matches!(plan, Plan::UseStored(_)), "{plan:?}");
        }
    }
}

#[test]
fn a_token_that_did_not_make_the_identity_enrols_anew_with_a_way_back() {
    let ca = Ca::generate(now()).unwrap();
    let pin = Some(ca.pin());
    let plan = decide(
        Some(Ok(stored(&ca))),
        "edge-1",
        Some(OTHER_TOKEN),
        pin,
        now(),
    )
    .unwrap();
    assert!(
        matches!(
            plan,
            Plan::Enrol {
                fallback: Some(_),
                ..
            }
        ),
        "{plan:?}"
    );
}

#[test]
fn an_identity_that_cannot_serve_is_replaced_with_a_token_and_an_error_without() {
    let ca = Ca::generate(now()).unwrap();
    let other = Ca::generate(now()).unwrap();
    let late = now() + 2 * DAY;
    let cases = [
        (None, "edge-1", ca.pin(), now(), "not enrolled"),
        (
            Some(Ok(stored(&ca))),
            "edge-1",
            ca.pin(),
            late,
            "expired at",
        ),
        (
            Some(Ok(stored(&ca))),
            "edge-2",
            ca.pin(),
            now(),
            "is for node edge-1, not for edge-2",
        ),
        (
            Some(Ok(stored(&ca))),
            "edge-1",
            other.pin(),
            now(),
            "another CA than --ca-hash",
        ),
        (
            Some(Err(Unusable::NoCa)),
            "edge-1",
            ca.pin(),
            now(),
            "lacks the CA's certificate",
        ),
    ];
    for (stored, node, pin, now, reason) in cases {
        let again = stored.as_ref().map(|stored| match stored {
            Ok(_) => Ok(self::stored(&ca)),
            Err(_) => Err(Unusable::NoCa),
        });
        let error = decide(stored, node, None, Some(pin), now)
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{error} lacks {reason}");
        assert!(
            error.contains(&format!("culvert token create --node {node}")),
            "{error}"
        );
        let plan = decide(again, node, Some(TOKEN), Some(pin), now).unwrap();
        assert!(
            matches!(plan, Plan::Enrol { fallback: None, .. }),
            "{plan:?}"
        );
    }
}

#[test]
fn a_token_without_the_hash_of_the_ca_is_an_error() {
    let error = decide(None, "edge-1", Some(TOKEN), None, now()).unwrap_err();
    assert_eq!(error, NoIdentity::NoPin);
}

#[test]
fn a_token_that_cannot_be_read_matters_only_without_an_identity() {
    let ca = Ca::generate(now()).unwrap();
    let node = "edge-1".parse().unwrap();
    let asked = Asked {
        node: &node,
        token: Some(Err("cannot read --token-file /gone")),
        pin: Some(ca.pin()),
    };
    let enrolled = plan(Some(Ok(stored(&ca))), asked, now()).unwrap();
    assert!(matches!(enrolled, Plan::UseStored(_)), "{enrolled:?}");
    for unusable in [None, Some(Err(Unusable::NoCa))] {
        let error = plan(unusable, asked, now()).unwrap_err();
        assert!(error.to_string().contains("--token-file /gone"), "{error}");
    }
}
