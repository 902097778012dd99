use super::*;

#[test]
fn a_token_reads_back_as_it_was_given_out() {
    let token = JoinToken::generate();
    assert_eq!(token.reveal().parse(), Ok(token.clone()));
    assert_eq!(format!("  {}\n", token.reveal()).parse(), Ok(token));
}

#[test]
fn what_is_no_token_is_refused_without_repeating_it() {
    for text in [
        "",
        "abcdef",
        "abcdef.",
        ".secret",
        "abc.def",
        "ABCDEF.secret",
        "../../x.secret",
    ] {
        let error = text.parse::<JoinToken>().unwrap_err().to_string();
        assert!(
            error.contains("ID.SECRET") && error.contains("culvert token create"),
            "{error}"
        );
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn an_id_cannot_name_a_file_elsewhere() {
    for id in ["../../etc", "a/b/c/d", "......", "short", "Upper-Case"] {
        assert_eq!(id.parse::<TokenId>(), Err(InvalidTokenId), "{id}");
    }
}
