//! What guards do at their end.

use std::thread;

use anyhow::Result;

/// For a guard that has to succeed: in a test that fails already, another panic would end the whole run and hide the
/// first error.
pub(crate) fn tidied(what: &str, done: Result<()>) {
    match done {
        Err(error) if thread::panicking() => eprintln!("{what}: {error:#}"),
        done => done.unwrap(),
    }
}
