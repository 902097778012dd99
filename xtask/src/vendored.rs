//! What is below `vendor` is of packages of crates.io, changed by the patches beside them and by nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{setup, shell};

/// Compares every library below `vendor` with its package, and may ask for known holes of that.
pub(crate) fn check(advisories: bool) -> Result<()> {
    let vendor = shell::root().join("vendor");
    let entries = fs::read_dir(&vendor).with_context(|| format!("read {}", vendor.display()))?;
    for entry in entries {
        let library = entry?.path();
        if library.is_dir() {
            check_library(&library, advisories)
                .with_context(|| format!("compare {} with its package", library.display()))?;
        }
    }
    Ok(())
}

fn check_library(library: &Path, advisories: bool) -> Result<()> {
    let name = library.file_name().context("a name")?.to_string_lossy();
    let version = version(library)?;
    let scratch = tempfile::tempdir()?;
    let package = fetch(&name, &version, scratch.path())?;
    let patch = library.with_extension("patch");
    let mut apply = Command::new("git");
    apply.current_dir(&package).args(["apply", "-p2"]);
    shell::run(apply.arg(&patch))?;
    for entry in fs::read_dir(library)? {
        let ours = entry?;
        let mut compare = Command::new("git");
        compare.args(["diff", "--no-index", "--exit-code"]);
        shell::run(compare.arg(package.join(ours.file_name())).arg(ours.path()))?;
    }
    if advisories {
        let mut check = Command::new(setup::lint_tool(&setup::LintTool::DENY)?);
        check.args(["--log-level", "error", "check", "advisories"]);
        shell::run(check.current_dir(scratch.path()))?;
    }
    Ok(())
}

/// The package as cargo unpacks it, once it has compared it with the index.
fn fetch(name: &str, version: &str, scratch: &Path) -> Result<PathBuf> {
    let manifest = format!(
        "[package]\nname = \"fetch\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n{name} = \"={version}\"\n"
    );
    fs::create_dir(scratch.join("src"))?;
    fs::write(scratch.join("src/lib.rs"), "")?;
    fs::write(scratch.join("Cargo.toml"), manifest)?;
    let mut vendor = Command::new("cargo");
    vendor
        .current_dir(scratch)
        .args(["vendor", "--quiet", "--versioned-dirs"]);
    shell::output(&mut vendor)?;
    Ok(scratch.join("vendor").join(format!("{name}-{version}")))
}

fn version(library: &Path) -> Result<String> {
    let manifest = fs::read_to_string(library.join("Cargo.toml"))?;
    let line = manifest
        .lines()
        .find_map(|line| line.strip_prefix("version = "));
    let version = line.context("its Cargo.toml has no version")?;
    Ok(version.trim_matches('"').to_owned())
}
