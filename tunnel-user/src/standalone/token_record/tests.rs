use super::*;

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(seconds)
}

fn token_and_record() -> (JoinToken, TokenRecord) {
    let token = JoinToken::generate();
    let life = (at(0), at(3600));
    let record = TokenRecord::new(&token, "edge-1".parse().unwrap(), vec![], None, life);
    (token, record)
}

fn key(name: &str) -> SubjectKey {
    SubjectKey::of(name.as_bytes())
}

#[test]
fn neither_the_record_nor_debug_output_holds_the_secret() {
    let (token, record) = token_and_record();
    let revealed = token.reveal();
    let (_, secret) = revealed.split_once('.').unwrap();
    assert!(
        secret.len() * 5 >= 128,
        "{} characters are too few",
        secret.len()
    );
    assert!(!serde_json::to_string(&record).unwrap().contains(secret));
    assert!(!format!("{token:?}").contains(secret));
}

#[test]
fn only_the_right_secret_is_known() {
    let (token, record) = token_and_record();
    let (other, _) = token_and_record();
    assert!(record.knows(&token));
    assert!(!record.knows(&other));
}

#[test]
fn the_first_key_may_come_again_and_nobody_else() {
    let (_, mut record) = token_and_record();
    assert_eq!(record.admit(&key("a"), at(1)).unwrap(), TokenUse::First);
    record.used_by = Some(key("a"));
    assert_eq!(record.admit(&key("a"), at(2)).unwrap(), TokenUse::Again);
    let error = record.admit(&key("b"), at(2)).unwrap_err();
    assert!(matches!(error, Refused::Used), "{error}");
    assert!(
        error.to_string().contains("culvert token create"),
        "{error}"
    );
}

#[test]
fn an_expired_token_is_refused_even_to_the_key_that_used_it() {
    let (_, mut record) = token_and_record();
    for used_by in [None, Some(key("a"))] {
        record.used_by = used_by;
        let error = record.admit(&key("a"), at(3600)).unwrap_err();
        assert!(
            matches!(error, Refused::Expired(end) if end == at(3600)),
            "{error}"
        );
        assert!(error.to_string().contains("--ttl"), "{error}");
    }
}

#[test]
fn a_revoked_token_is_refused() {
    let (_, mut record) = token_and_record();
    record.revoked = true;
    let error = record.admit(&key("a"), at(1)).unwrap_err();
    assert!(matches!(error, Refused::Revoked), "{error}");
}

#[test]
fn the_status_says_what_can_be_done() {
    let (_, mut record) = token_and_record();
    assert_eq!(record.status(at(0)), TokenStatus::Open);
    assert_eq!(record.status(at(3600)), TokenStatus::Expired);
    record.used_by = Some(key("a"));
    assert_eq!(record.status(at(3600)), TokenStatus::Used);
    record.revoked = true;
    assert_eq!(record.status(at(0)), TokenStatus::Revoked);
}
