//! Counts results out of what Rust's test harness prints, while showing it.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read};
use std::ops::AddAssign;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result};

/// How many tests passed and failed, and which failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) failures: Vec<String>,
}

impl Tally {
    /// Takes in one line; only the closing line of a test binary counts, and those of failures name them.
    pub(super) fn take(&mut self, line: &str) {
        if let Some((_, counts)) = line.split_once("test result: ") {
            self.passed += before(counts, " passed");
            self.failed += before(counts, " failed");
        } else if let Some(name) = line
            .strip_suffix(" ... FAILED")
            .and_then(|line| line.strip_prefix("test "))
        {
            self.failures.push(name.to_owned());
        }
    }
}

/// The number in front of `word`.
fn before(counts: &str, word: &str) -> u64 {
    let number = counts
        .split(word)
        .next()
        .and_then(|left| left.rsplit(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.failures.extend(other.failures);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Runs the command to its end, showing and counting its standard output.
pub(super) fn follow(command: &mut Command) -> Result<(ExitStatus, Tally)> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("start the tests")?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let mut tally = Tally::default();
    lines(stdout, |line| {
        println!("{line}");
        tally.take(line);
    });
    Ok((child.wait()?, tally))
}

/// Hands every line on, whatever bytes are in it.
pub(super) fn lines(stream: impl Read, mut take: impl FnMut(&str)) {
    for line in BufReader::new(stream)
        .split(b'\n')
        .map_while(std::io::Result::ok)
    {
        take(String::from_utf8_lossy(&line).trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn only_closing_lines_count_and_failures_are_named() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test one ... ok",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            "test races::one ... ok",
            "test races::two ... FAILED",
            "test result: FAILED. 20 passed; 2 failed; 0 ignored",
            "7 passed",
        ] {
            tally.take(line);
        }
        assert_eq!(
            tally,
            Tally {
                passed: 23,
                failed: 2,
                failures: vec!["races::two".into()],
            }
        );
        assert_eq!(tally.to_string(), "23 passed, 2 failed");
    }
}
