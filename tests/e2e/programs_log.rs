//! What the kernel programs say reaches the server's log, whatever else is logged.

use crate::stage::{NODE, PATIENCE, Stage};

const PASSED: &str = "verdict=\"pass\" reason=\"other-address\" address=10.78.0.99 port=10250";
const REDIRECTED: &str = "verdict=\"redirect\" reason=\"range\" address=10.78.0.11 port=10250";

#[test]
fn each_level_shows_its_lines() {
    for (flags, shows_passed) in [
        ("--ebpf-log-level debug", true),
        ("--ebpf-log-level info", false),
    ] {
        let stage = Stage::new();
        let (mut server, _agent) = stage.culvert(flags, "");
        stage.fails("10.78.0.99:10250");
        stage.fails(NODE);
        server.wait_for_line(REDIRECTED, PATIENCE).unwrap();
        let output = server.output();
        assert_eq!(output.contains(PASSED), shows_passed, "{flags}: {output}");
    }
}
