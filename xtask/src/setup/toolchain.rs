//! A compiler for the kernel programs, bpf-linker, and what looks at dependencies.
//!
//! Two ways lead there. Debian has a compiler with a ready-made `core` for BPF and the LLVM that matches it: no
//! rustup needed. Elsewhere a rustup nightly builds `core` from rust-src.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Step, packages};
use crate::shell;

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: [&str; 4] = [
    "rustc-web",
    "libstd-rust-web-dev-bpf",
    "llvm-22-dev",
    "libpolly-22-dev",
];
/// Of these tools a version is built from the crate registry with its own lock file, which holds a checksum of each
/// dependency. The compiler is Debian's, by its archive's signature, or a nightly of one day.
const LINKER_VERSION: &str = "0.13.0";

/// Something that looks at dependencies. Nothing but the lint needs it.
pub(crate) struct LintTool {
    name: &'static str,
    version: &'static str,
}

impl LintTool {
    /// Licenses, sources, known holes.
    pub(crate) const DENY: Self = Self {
        name: "cargo-deny",
        version: "0.20.2",
    };
    /// Those that nothing uses.
    pub(crate) const MACHETE: Self = Self {
        name: "cargo-machete",
        version: "0.9.2",
    };
}

pub(super) fn missing() -> Vec<Step> {
    let mut steps = Vec::new();
    let debian = has_debian_compiler();
    if !debian && !has_nightly() {
        steps.push(compiler());
    }
    if linker().is_none() {
        steps.push(bpf_linker());
    }
    if shell::find("rustup").is_some() && !has_components() {
        let mut add = Command::new("rustup");
        add.args(["component", "add", "clippy", "rustfmt"]);
        steps.push(Step {
            why: "rustup components that are missing: clippy or rustfmt".into(),
            commands: vec![add],
            needs_root: false,
        });
    }
    steps
}

pub(super) fn missing_to_lint() -> impl Iterator<Item = Step> {
    let missing = |tool: &LintTool| tool.find().is_none().then(|| tool.install());
    LintTool::ALL.iter().filter_map(missing)
}

/// What the kernel programs will be built with.
pub(super) fn describe() -> String {
    let compiler = if has_debian_compiler() {
        "Debian's rustc"
    } else {
        "rustup nightly"
    };
    let linker = linker().unwrap_or_default();
    format!(
        "kernel programs are built by {compiler} and {}",
        linker.display()
    )
}

fn has_debian_compiler() -> bool {
    let mut ask = Command::new(DEBIAN_RUSTC);
    ask.args(["--print", "target-libdir", "--target", "bpfel-unknown-none"]);
    shell::output(&mut ask).is_ok_and(|directory| {
        let files = Path::new(directory.trim())
            .read_dir()
            .into_iter()
            .flatten()
            .flatten();
        files
            .map(|file| file.file_name())
            .any(|name| name.to_string_lossy().starts_with("libcore-"))
    })
}

fn has_nightly() -> bool {
    let mut ask = Command::new("rustup");
    ask.args(["run", ebpf_builder::NIGHTLY, "rustc", "--print", "sysroot"]);
    shell::output(&mut ask).is_ok_and(|sysroot| {
        Path::new(sysroot.trim())
            .join("lib/rustlib/src/rust/library/core")
            .is_dir()
    })
}

fn has_components() -> bool {
    ["clippy", "fmt"]
        .iter()
        .all(|tool| shell::output(&mut shell::cargo([tool, "--version"])).is_ok())
}

fn linker() -> Option<PathBuf> {
    installed("bpf-linker")
}

fn installed(tool: &str) -> Option<PathBuf> {
    let installed = ebpf_builder::cargo_home().map(|cargo| cargo.join("bin").join(tool));
    shell::find(tool).or(installed.filter(|file| file.is_file()))
}

/// Debian's compiler where apt has it, else a nightly where rustup is, else the words for a person.
fn compiler() -> Step {
    if packages::available("libstd-rust-web-dev-bpf") || shell::find("rustup").is_none() {
        return Step {
            why: "a compiler for BPF is missing: Debian's packages have one".into(),
            commands: packages::install(DEBIAN_PACKAGES),
            needs_root: true,
        };
    }
    let mut nightly = Command::new("rustup");
    nightly.args(["toolchain", "install", ebpf_builder::NIGHTLY]);
    nightly.args(["--profile", "minimal"]);
    nightly.args(["--component", "rust-src"]);
    Step {
        why: "a compiler for BPF is missing: rustup's nightly with rust-src is one".into(),
        commands: vec![nightly],
        needs_root: false,
    }
}

impl LintTool {
    const ALL: [Self; 2] = [Self::DENY, Self::MACHETE];

    /// The program, where it is installed.
    pub(crate) fn find(&self) -> Option<PathBuf> {
        installed(self.name)
    }

    /// The program's name.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    fn install(&self) -> Step {
        // It runs for seconds: optimising it would take longer than it saves.
        let words = [
            "install",
            self.name,
            "--version",
            self.version,
            "--locked",
            "--debug",
        ];
        Step {
            why: format!(
                "{} is missing: cargo builds it (a minute or two)",
                self.name
            ),
            commands: vec![shell::cargo(words)],
            needs_root: false,
        }
    }
}

fn bpf_linker() -> Step {
    let mut install = shell::cargo([
        "install",
        "bpf-linker",
        "--version",
        LINKER_VERSION,
        "--locked",
    ]);
    if has_debian_compiler() || packages::available("llvm-22-dev") {
        let path = env::var("PATH").unwrap_or_default();
        install.env("PATH", format!("/usr/lib/llvm-22/bin:{path}"));
        install.args(["--no-default-features", "--features", "llvm-22"]);
    }
    Step {
        why: "bpf-linker is missing: cargo builds it (a minute or two)".into(),
        commands: vec![install],
        needs_root: false,
    }
}
