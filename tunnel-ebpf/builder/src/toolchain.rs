//! Finds a compiler that has `core` for BPF, and the linker that makes its bitcode an object.
//!
//! Two kinds are known to work: Debian's `rustc-web`, which has a prebuilt `core` for BPF, and a
//! rustup nightly, which builds `core` from `rust-src`.

use std::{
    env,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::workspace_root;

/// The programs' target: every machine that we build for is little-endian.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

const LINKER: &str = "bpf-linker";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
/// One of a day, so that the same sources make the same object.
pub const NIGHTLY: &str = "nightly-2026-05-20";

/// What of cargo's own environment would change the nested build.
const INHERITED: [&str; 8] = [
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// A compiler and a linker for BPF.
#[derive(Clone, Debug)]
pub struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

#[derive(Clone, Debug)]
enum Compiler {
    /// A compiler with a prebuilt `core` for BPF.
    Prebuilt(PathBuf),
    /// A rustup nightly that builds `core`.
    Nightly,
}

impl Toolchain {
    /// Finds what is installed; the error says what is missing.
    pub fn find() -> Result<Self, String> {
        let linker = find_linker().ok_or_else(|| format!("{LINKER} is not installed"))?;
        let compiler = if has_core(Path::new(DEBIAN_RUSTC)) {
            Compiler::Prebuilt(DEBIAN_RUSTC.into())
        } else if has_nightly() {
            Compiler::Nightly
        } else {
            return Err("no Rust compiler with a core library for BPF is installed".to_owned());
        };
        Ok(Self { compiler, linker })
    }

    pub(crate) fn linker(&self) -> &Path {
        &self.linker
    }

    pub(crate) fn compiler(&self) -> Option<&Path> {
        match &self.compiler {
            Compiler::Prebuilt(rustc) => Some(rustc),
            Compiler::Nightly => None,
        }
    }

    /// Cargo, set up to compile for BPF.
    pub(crate) fn cargo(&self) -> Command {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = match &self.compiler {
            Compiler::Prebuilt(_) => Command::new(cargo),
            Compiler::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", NIGHTLY, "cargo"]);
                command
            }
        };
        for name in INHERITED {
            command.env_remove(name);
        }
        match &self.compiler {
            // The target is a tier 3 one: its compiler must accept what is not yet stable.
            Compiler::Prebuilt(rustc) => {
                command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
            }
            Compiler::Nightly => {
                command.args(["-Z", "build-std=core"]);
            }
        }
        command
            .env("PATH", path_with(self.linker.parent()))
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags());
        command
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.compiler {
            Compiler::Prebuilt(rustc) => write!(f, "{} with its own core", rustc.display()),
            Compiler::Nightly => f.write_str("rustup's nightly, core built from source"),
        }
    }
}

/// `--btf` keeps the type information that gives the maps' fields their names. Where the sources lie
/// makes no other object.
fn rustflags() -> String {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| env::consts::ARCH.to_owned());
    let mut flags = vec![
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
    ];
    let places = [
        (Some(workspace_root()), "/culvert"),
        (cargo_home(), "/cargo"),
    ];
    for (place, name) in places {
        flags.extend(place.map(|place| format!("--remap-path-prefix={}={name}", place.display())));
    }
    flags.join("\u{1f}")
}

/// Where cargo keeps programs and the sources of libraries; `None` without a home directory.
pub fn cargo_home() -> Option<PathBuf> {
    let default = || env::home_dir().map(|home| home.join(".cargo"));
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    cargo_home.or_else(default)
}

fn find_linker() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(cargo_home().map(|home| home.join("bin")))
        .map(|dir| dir.join(LINKER))
        .find(|candidate| candidate.is_file())
}

fn path_with(dir: Option<&Path>) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = dir
        .map(Path::to_owned)
        .into_iter()
        .chain(env::split_paths(&path));
    env::join_paths(dirs).unwrap_or(path)
}

fn has_core(rustc: &Path) -> bool {
    stdout(Command::new(rustc).args(["--print", "sysroot"])).is_some_and(|sysroot| {
        Path::new(&sysroot)
            .join("lib/rustlib")
            .join(TARGET)
            .join("lib")
            .is_dir()
    })
}

fn has_nightly() -> bool {
    let mut rustc = Command::new("rustup");
    rustc.args(["run", NIGHTLY, "rustc", "--print", "sysroot"]);
    stdout(&mut rustc).is_some_and(|sysroot| {
        Path::new(&sysroot)
            .join("lib/rustlib/src/rust/library/core")
            .is_dir()
    })
}

fn stdout(command: &mut Command) -> Option<String> {
    let output = command
        .env_remove("RUSTUP_TOOLCHAIN")
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
