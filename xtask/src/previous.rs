//! The version before the maps' present layout, built from the repository's history: a test takes over from it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::shell;

/// The last commit with layout 1 of the maps. When the layout changes, this is the last with the one before.
const COMMIT: &str = "b08168526378f6e5c79dcd4d87d8eb0c68f6ce9a";
/// Those that its libraries have in the present build, and did not ask for: with these they are compiled once.
const FEATURES: &str = "tokio/test-util,kube/http-proxy,hyper-util/client-proxy";
/// From here on a manifest says how everything is compiled.
const PROFILES: &str = "[profile.release]\n";
/// What the tests look for beside the programs of now.
pub(crate) const PROGRAM: &str = "previous-culvert";

/// Builds its `culvert`, unless that has been done.
pub(crate) fn ensure() -> Result<()> {
    let target = shell::target_directory();
    let sources = target.join("previous").join(COMMIT);
    let built = sources.join("target/debug/culvert");
    if !built.is_file() {
        unpack(&sources)?;
        adapt(&sources)?;
        build(&sources, &target)?;
    }
    let programs = target.join("debug");
    fs::create_dir_all(&programs)?;
    fs::copy(&built, programs.join(PROGRAM))
        .with_context(|| format!("copy {}", built.display()))?;
    Ok(())
}

fn build(sources: &Path, target: &Path) -> Result<()> {
    let mut command = shell::cargo(["build", "--quiet", "--workspace", "--bin", "culvert"]);
    command.args(["--features", FEATURES]);
    command.current_dir(sources);
    command.env("CARGO_BUILD_BUILD_DIR", target);
    command.env("CARGO_TARGET_DIR", sources.join("target"));
    shell::run(&mut command)
}

/// Gives it a version number of its own, for by name and number cargo would take its packages for those of now, and the
/// present profiles, by which its libraries are compiled already.
fn adapt(sources: &Path) -> Result<()> {
    let manifest = sources.join("Cargo.toml");
    let before =
        fs::read_to_string(&manifest).context("read the manifest of the version before")?;
    let now = fs::read_to_string(shell::root().join("Cargo.toml")).context("read Cargo.toml")?;
    let (before, _) = before
        .split_once(PROFILES)
        .context("the version before has no profiles")?;
    let (_, profiles) = now
        .split_once(PROFILES)
        .context("Cargo.toml has no profiles")?;
    let before = before.replacen(
        concat!("version = \"", env!("CARGO_PKG_VERSION"), "\""),
        "version = \"0.0.1\"",
        1,
    );
    fs::write(&manifest, format!("{before}{PROFILES}{profiles}"))
        .context("write the manifest of the version before")
}

fn unpack(to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    let archive = to.with_extension("tar");
    let mut pack = Command::new("git");
    pack.args(["archive", "--format=tar", "--output"])
        .arg(&archive)
        .arg(COMMIT)
        .current_dir(shell::root());
    shell::output(&mut pack).context(
        "the sources of the version before (a clone needs its history: git fetch --unshallow)",
    )?;
    let mut unpack = Command::new("tar");
    unpack.arg("--extract").arg("--file").arg(&archive);
    shell::output(unpack.arg("--directory").arg(to))?;
    fs::remove_file(&archive).context("remove the archive of the version before")
}
