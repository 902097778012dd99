//! The programs that log, and what they need.

use super::lab::{NODE_V4, NODE_V6, PATIENCE, RedirectLab, SERVER_V4};

#[test]
fn every_decision_is_a_line_with_fields() {
    let lab = RedirectLab::new();
    let mut server = lab.server("--log-level debug --mark 7");
    lab.reaches(&format!("--to {NODE_V4}"));
    lab.reaches(&format!("--to {NODE_V6}"));
    lab.fails("--to 10.78.0.12:10250");
    lab.fails(&format!("--to {NODE_V4} --mark 7"));
    lab.fails(&format!("--to {SERVER_V4}"));
    for line in [
        "verdict=\"redirect\" reason=\"range\" address=10.78.0.11 port=10250",
        "verdict=\"redirect\" reason=\"range\" address=fd00:78::11 port=10250",
        "verdict=\"pass\" reason=\"other-address\" address=10.78.0.12 port=10250",
        "verdict=\"exempt\" reason=\"mark\" address=10.78.0.11 port=10250",
        "verdict=\"pass\" reason=\"own-listener\" address=10.77.0.1 port=20250",
    ] {
        server.wait_for_line(line, PATIENCE).unwrap();
    }
}
