//! Compiles the redirect's kernel programs.
//!
//! `build.rs` and `cargo xtask build-ebpf` both call [`build`], so that what is embedded is what
//! was inspected. Cargo itself decides whether the object is fresh; it is never stale.

mod toolchain;

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

pub use toolchain::{NIGHTLY, Toolchain, cargo_home};

/// Which of the two objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Without logging: what runs in production, and what libbpf accepts.
    Plain,
    /// With a line for every decision through aya-log.
    Log,
}

/// A compiled object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Where the ELF file lies. The next build replaces it.
    pub path: PathBuf,
    /// What compiled it.
    pub toolchain: Toolchain,
}

/// Why there is no object.
#[derive(Debug)]
pub enum BuildError {
    /// No compiler or linker for BPF; the text names what is missing.
    NoToolchain(String),
    /// The compiler did not start.
    Start(std::io::Error),
    /// The compiler failed; its messages are in the text.
    Compile(String),
}

impl Variant {
    /// Both objects.
    pub const ALL: [Self; 2] = [Self::Plain, Self::Log];

    /// The name of this variant's directory and file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Log => "log",
        }
    }

    fn features(self) -> &'static str {
        match self {
            Self::Plain => "programs",
            Self::Log => "log",
        }
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToolchain(missing) => write!(
                f,
                "cannot compile the eBPF programs: {missing}; `cargo xtask setup` installs it"
            ),
            Self::Start(error) => write!(f, "cannot start cargo for the eBPF programs: {error}"),
            Self::Compile(messages) => write!(f, "the eBPF programs do not compile:\n{messages}"),
        }
    }
}

impl std::error::Error for BuildError {}

/// Compiles one object, unless it is fresh.
///
/// # Errors
/// When no toolchain for BPF is installed, or the programs do not compile.
pub fn build(variant: Variant) -> Result<Object, BuildError> {
    let toolchain = Toolchain::find().map_err(BuildError::NoToolchain)?;
    let target_dir = target_dir().join("ebpf").join(variant.name());
    let output = command(&toolchain, variant, &target_dir)
        .output()
        .map_err(BuildError::Start)?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(BuildError::Compile(messages));
    }
    let path = target_dir
        .join(toolchain::TARGET)
        .join("ebpf")
        .join("culvert-redirect");
    Ok(Object { path, toolchain })
}

/// Everything whose change makes another object, for `cargo:rerun-if-changed`.
pub fn inputs() -> Vec<PathBuf> {
    let root = workspace_root();
    let mut inputs = vec![
        root.join("tunnel-ebpf/src"),
        root.join("tunnel-ebpf/Cargo.toml"),
        root.join("Cargo.toml"),
        root.join("Cargo.lock"),
    ];
    if let Ok(toolchain) = Toolchain::find() {
        inputs.push(toolchain.linker().to_owned());
        inputs.extend(toolchain.compiler().map(Path::to_owned));
    }
    inputs
}

fn command(toolchain: &Toolchain, variant: Variant, target_dir: &Path) -> Command {
    let mut command = toolchain.cargo();
    command
        .current_dir(workspace_root())
        .args(["build", "--quiet", "--locked", "--profile", "ebpf"])
        .args(["--package", "tunnel-ebpf", "--bin", "culvert-redirect"])
        .args(["--features", variant.features()])
        .args(["--target", toolchain::TARGET])
        .arg("--target-dir")
        .arg(target_dir);
    command
}

/// The directory that cargo marked as its target directory: the caller lies in it. The objects get
/// directories of their own below it, so that cargo's lock on the caller's build does not block.
fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    exe.ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file())
        .map_or_else(|| workspace_root().join("target"), Path::to_owned)
}

pub(crate) fn workspace_root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root.pop();
    root
}
