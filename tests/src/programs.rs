//! Where the built programs are: beside the test binary, or where `CULVERT_BIN_DIR` says.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// The `culvert` binary.
pub fn culvert() -> Result<PathBuf> {
    find("culvert", "cargo build -p tunnel-user")
}

/// The `probe` binary, see [`crate::report`].
pub fn probe() -> Result<PathBuf> {
    find("probe", "cargo build -p culvert-tests")
}

/// The `acceptor` binary: the smallest server behind the redirect.
pub fn acceptor() -> Result<PathBuf> {
    find("acceptor", "cargo build -p culvert-tests")
}

fn find(name: &str, build: &str) -> Result<PathBuf> {
    let directory = match env::var_os("CULVERT_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => profile_directory()?,
    };
    let path = directory.join(name);
    if !path.is_file() {
        bail!("there is no {} ({build})", path.display());
    }
    Ok(path)
}

/// `target/<profile>`: the directory of a binary, and one above a test's.
fn profile_directory() -> Result<PathBuf> {
    let own = env::current_exe().context("find the own binary")?;
    let mut directory = own.parent().context("a binary without a directory")?;
    if directory.ends_with("deps") {
        directory = directory.parent().context("target/<profile>")?;
    }
    Ok(directory.to_owned())
}
