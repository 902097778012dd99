use super::*;

fn dial(error: DialError) -> Refusal {
    Refusal::Dial {
        node: "edge-1".parse().unwrap(),
        dst: "10.78.0.11:9100".parse().unwrap(),
        error,
    }
}

fn refused(answer: &str) -> Refusal {
    dial(DialError::Refused(answer.to_owned()))
}

#[test]
fn each_failed_dial_has_the_code_and_reason_that_fit() {
    let node: NodeName = "edge-1".parse().unwrap();
    for (refusal, code, reason) in [
        (
            dial(DialError::UnknownNode(node.clone())),
            404,
            HttpReason::UnknownNode,
        ),
        (
            dial(DialError::NoSession(node.clone())),
            503,
            HttpReason::NoSession,
        ),
        (
            dial(DialError::SessionEnded(node)),
            503,
            HttpReason::DialFailed,
        ),
        (
            dial(DialError::OutOfMemory { limit: 1 }),
            503,
            HttpReason::DialFailed,
        ),
        (
            dial(DialError::TimedOut(Duration::ZERO)),
            504,
            HttpReason::TimedOut,
        ),
        (refused("dial tcp: i/o timeout"), 504, HttpReason::TimedOut),
        (
            refused("connect: connection refused"),
            502,
            HttpReason::DialFailed,
        ),
        (
            refused("not allowed by the agent's policy"),
            403,
            HttpReason::DialFailed,
        ),
        (
            refused("connect: too many open files"),
            503,
            HttpReason::DialFailed,
        ),
    ] {
        assert_eq!(refusal.code().as_u16(), code, "{refusal}");
        assert_eq!(refusal.reason(), reason, "{refusal}");
        let waits = refusal.response().headers().contains_key(RETRY_AFTER);
        assert_eq!(waits, code == 503, "{refusal}");
    }
}

#[test]
fn a_status_names_node_cause_and_remedy() {
    let refusal = refused("dial tcp 10.78.0.11:9100: connect: connection refused");
    let status: serde_json::Value = serde_json::from_str(&refusal.status()).unwrap();
    let expected = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": "BadGateway", "code": 502,
        "message": "node edge-1, target 10.78.0.11:9100: the agent answered: dial tcp 10.78.0.11:9100: connect: \
                    connection refused: see whether the service runs on the node, and listens there",
    });
    assert_eq!(status, expected);
}

#[test]
fn last_words_are_a_whole_response() {
    let words = Refusal::BadHead.as_last_words();
    let (head, body) = words.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
    assert!(
        head.contains(&format!("content-length: {}\r\n", body.len())),
        "{head}"
    );
    assert!(body.contains("\"code\":400"), "{body}");
}
