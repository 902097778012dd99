//! The flags of Yurt-Tunnel as its programs state them, against the lists by which culvert's translation is checked.

use std::fs;

use culvert_tests::cluster::{repository, yurt_tunnel};
use culvert_tests::{command, programs};

/// The lists by which the translated command lines are checked.
#[test]
fn the_lists_of_flags_are_those_of_the_real_programs() {
    for (program, list) in [
        (yurt_tunnel::SERVER, "server-flags.txt"),
        (yurt_tunnel::AGENT, "agent-flags.txt"),
    ] {
        let real = programs::of_module("openyurt", program).unwrap();
        let help = command::run(real.to_str().unwrap(), ["--help"]).unwrap();
        let real: Vec<_> = help.lines().filter_map(listed).collect();
        let path = repository()
            .join("tunnel-user/src/cli/yurt_tunnel")
            .join(list);
        let known = fs::read_to_string(&path).unwrap();
        assert_eq!(
            known.lines().collect::<Vec<_>>(),
            real,
            "{}",
            path.display()
        );
    }
}

/// A line of the help as it stands in the lists: names, type and default.
fn listed(line: &str) -> Option<String> {
    let line = line.trim_start();
    if !line.starts_with('-') || line.starts_with("-h,") {
        return None;
    }
    let (flag, meaning) = line.split_once("   ")?;
    let (names, kind) = match flag.rsplit_once(' ') {
        Some((names, kind)) if !kind.starts_with('-') => (names, kind),
        _ => (flag, "bool"),
    };
    let default = meaning
        .rsplit_once("(default ")
        .map_or("", |(_, default)| default);
    let default = default.trim_end_matches(')').trim_matches('"');
    Some(format!("{names} {kind} = {default}").trim_end().to_owned())
}
