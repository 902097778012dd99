//! `cargo xtask image`: Culvert as an OCI image archive, made without an engine.
//!
//! The image is one static binary, under its other names as well, and nothing else. Built for release, the binary is
//! the same whenever and wherever it is built from the same sources with the same compilers, and so is the archive.

mod archive;
mod common;
mod layer;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::{Args as ClapArgs, ValueEnum};

use crate::{setup, shell};
use archive::Image;
use layer::Layer;

pub(crate) use common::ensure as ensure_common;

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// How the binary is built
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
    /// The image's name and tag; by default localhost/culvert with the version
    #[arg(long)]
    name: Option<String>,
    /// Where the archive goes; by default images/culvert.tar in the target directory
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// Optimised: what is shipped
    Release,
    /// Our own code optimised, with assertions, and the libraries of the tests: what tests with full loads run
    Quick,
    /// Our own code not optimised: what other tests run
    Dev,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure(setup::Purpose::Build)?;
    let name = args.name.clone().unwrap_or_else(default_name);
    let output = args.output.clone().unwrap_or_else(culvert_archive);
    let digests = build(args.profile, &name, &output)?;
    println!("{name} is in {}", output.display());
    println!("  archive   {}", digests.archive);
    println!("  manifest  {}", digests.manifest);
    Ok(())
}

/// Where the archive of Culvert is unless somebody wants it elsewhere.
fn culvert_archive() -> PathBuf {
    directory().join("culvert.tar")
}

/// The name that the manifests in `deploy/` use.
fn default_name() -> String {
    format!("localhost/culvert:{}", env!("CARGO_PKG_VERSION"))
}

/// The image that clusters of this machine run, of what the sources are now. It is not where a shipped one is expected.
pub(crate) fn ensure_culvert(profile: Profile) -> Result<()> {
    let archive = directory().join("culvert-for-tests.tar");
    build(profile, &default_name(), &archive).map(drop)
}

/// Where archives are.
pub(crate) fn directory() -> PathBuf {
    shell::target_directory().join("images")
}

/// By what others can tell that they have the same.
struct Digests {
    /// Of the file.
    archive: String,
    /// By which a registry's image is named: `registry.example/culvert@sha256:...`.
    manifest: String,
}

/// Builds binary and archive.
fn build(profile: Profile, name: &str, output: &Path) -> Result<Digests> {
    let binary = stripped(&match profile {
        Profile::Release => build_release()?,
        Profile::Quick => build_for_tests(&["--config", "profile.dev.opt-level=3"])?,
        Profile::Dev => build_for_tests(&[])?,
    })?;
    let content = fs::read(&binary).with_context(|| format!("read {}", binary.display()))?;
    let version = env!("CARGO_PKG_VERSION");
    let label =
        |key: &str, value: &str| (format!("org.opencontainers.image.{key}"), value.to_owned());
    let image = Image {
        name: name.to_owned(),
        entrypoint: vec!["/culvert".into()],
        labels: vec![label("title", "culvert"), label("version", version)],
        files: with_other_names(Layer::default().file("culvert", 0o755, content)),
    };
    write(&image, output)
}

/// The names by which Yurt-Tunnel's manifests call its programs, where its images have them.
fn with_other_names(files: Layer) -> Layer {
    let directories = ["usr", "usr/local", "usr/local/bin"];
    let files = directories
        .into_iter()
        .fold(files, |files, path| files.directory(path, 0o755));
    ["server", "agent"].into_iter().fold(files, |files, role| {
        files.link(&format!("usr/local/bin/yurt-tunnel-{role}"), "/culvert")
    })
}

/// The same wherever it is built. Paths of this machine are in messages of panics, and take another name.
fn build_release() -> Result<PathBuf> {
    let host = shell::host_triple()?;
    let cargo_home = ebpf_builder::cargo_home().context("neither CARGO_HOME nor HOME is set")?;
    let target = shell::target_directory();
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    for (path, name) in [
        (shell::root().to_owned(), "/culvert"),
        (target.clone(), "/target"),
        (cargo_home, "/cargo"),
    ] {
        flags.push(format!("--remap-path-prefix={}={name}", path.display()));
    }
    let mut cargo = shell::cargo(["rustc", "--quiet", "--release", "--locked"]);
    cargo.args([
        "--package",
        "tunnel-user",
        "--bin",
        "culvert",
        "--target",
        &host,
    ]);
    // The build ID is a hash of the debug information as well, which is stripped.
    cargo.args(["--", "-Clink-arg=-Wl,--build-id=none"]);
    shell::run(cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")))?;
    Ok(target.join(host).join("release").join("culvert"))
}

/// With the libraries that the tests are built with: only our own code is compiled, and libc is linked into the
/// program. It is kept apart from the program that other tests start.
fn build_for_tests(more: &[&str]) -> Result<PathBuf> {
    let output = directory().join("build");
    let mut cargo = shell::cargo(["rustc", "--quiet", "--package", "tunnel-user"]);
    cargo.args(["--bin", "culvert", "--features", "tokio/test-util"]);
    cargo
        .args(more)
        .args(["--", "-Ctarget-feature=+crt-static"]);
    cargo.env("CARGO_BUILD_BUILD_DIR", shell::target_directory());
    shell::run(cargo.env("CARGO_TARGET_DIR", &output))?;
    Ok(output.join("debug").join("culvert"))
}

/// Symbols make no difference to what runs, and eight times the size.
fn stripped(binary: &Path) -> Result<PathBuf> {
    let stripped = directory().join("culvert.stripped");
    fs::create_dir_all(directory()).with_context(|| format!("make {}", directory().display()))?;
    let mut strip = Command::new("strip");
    shell::output(strip.arg("-o").arg(&stripped).arg(binary))?;
    Ok(stripped)
}

/// Writes an archive as a whole: whoever is killed in between leaves the old one.
fn write(image: &Image, output: &Path) -> Result<Digests> {
    let directory = output.parent().context("an archive is in a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let partial = output.with_extension("partial");
    let (archive, manifest) = image.to_archive()?;
    fs::write(&partial, &archive).with_context(|| format!("write {}", partial.display()))?;
    fs::rename(&partial, output).with_context(|| format!("write {}", output.display()))?;
    Ok(Digests {
        archive: shell::digest(&archive),
        manifest,
    })
}
