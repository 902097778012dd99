//! The commands of the manuals, run as they stand there.

use std::fs;
use std::path::Path;
use std::time::Duration;

use culvert_tests::cluster::{Cluster, repository};

/// A job is run, servers and agents are exchanged.
const LONG: Duration = Duration::from_mins(5);

/// What stands between the fences of a block, counted from 0, of the section that begins like that.
pub(crate) fn block(manual: &str, section: &str, number: usize) -> String {
    let text = fs::read_to_string(repository().join(manual)).unwrap();
    let begins = |line: &str| {
        line.trim_start_matches('#')
            .trim_start()
            .starts_with(section)
    };
    let mut lines = text
        .lines()
        .skip_while(|line| !(line.starts_with("##") && begins(line)));
    assert!(lines.next().is_some(), "{manual} has no {section:?}");
    let body: Vec<_> = lines.take_while(|line| !line.starts_with("##")).collect();
    let body = body.join("\n");
    let block = body.split("```").nth(2 * number + 1);
    block
        .unwrap_or_else(|| panic!("{section:?} has no block {number}"))
        .to_owned()
}

/// Runs lines of a manual in a shell that knows which kubectl is meant, and returns what they say.
pub(crate) fn run(cluster: &Cluster, lines: &str) -> String {
    let kubectl = cluster.kubectl_launch().unwrap();
    let functions = format!("set -eu\nkubectl() {{ {} \"$@\"; }}", kubectl.to_shell());
    let script = format!("{functions}\ncd {}\n{lines}", repository().display());
    let sh = kubectl.with_program("sh").arg("-c").arg(script);
    sh.start().unwrap().succeed(LONG).unwrap()
}

/// The lines with an overlay in the place of manifests that fit no machines which share a kernel.
pub(crate) fn with_overlay(lines: &str, manifests: &str, overlay: &Path) -> String {
    assert!(lines.contains(manifests), "{lines}");
    lines.replace(manifests, overlay.to_str().unwrap())
}
