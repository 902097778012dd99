//! Programs of others that tests run against: Go modules below `tests/programs`, built from what `go.sum` pins.
//!
//! A module names its programs in `tools.go`. They are built into `programs/<module>` of the target directory, once
//! for each state of `go.mod` and `go.sum`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::{setup, shell};

/// A directory below `tests/programs`.
#[derive(Clone, Copy)]
pub(crate) struct Module {
    name: &'static str,
    /// `-X` settings of the linker: clients look at versions.
    versions: &'static [&'static str],
}

/// The cluster itself.
pub(crate) const KUBERNETES: Module = Module {
    name: "kubernetes",
    versions: &[
        "k8s.io/component-base/version.gitMajor=1",
        "k8s.io/component-base/version.gitMinor=34",
        "k8s.io/component-base/version.gitVersion=v1.34.4",
        "k8s.io/client-go/pkg/version.gitMajor=1",
        "k8s.io/client-go/pkg/version.gitMinor=34",
        "k8s.io/client-go/pkg/version.gitVersion=v1.34.4",
    ],
};

/// The same of the newest version.
pub(crate) const KUBERNETES_NEWEST: Module = Module {
    name: "kubernetes-newest",
    versions: &[
        "k8s.io/component-base/version.gitMajor=1",
        "k8s.io/component-base/version.gitMinor=37",
        "k8s.io/component-base/version.gitVersion=v1.37.2",
        "k8s.io/client-go/pkg/version.gitMajor=1",
        "k8s.io/client-go/pkg/version.gitMinor=37",
        "k8s.io/client-go/pkg/version.gitVersion=v1.37.2",
    ],
};

/// What its kubelet wants pods to be run by.
pub(crate) const CONTAINERD: Module = Module {
    name: "containerd",
    versions: &["github.com/containerd/containerd/v2/version.Version=2.2.9"],
};

/// What `kubectl top` asks.
pub(crate) const METRICS_SERVER: Module = Module {
    name: "metrics-server",
    versions: &["k8s.io/client-go/pkg/version.gitVersion=v0.7.2"],
};

/// What answers a cluster's names.
pub(crate) const COREDNS: Module = Module {
    name: "coredns",
    versions: &[],
};

/// The tunnel that Culvert is compared with.
pub(crate) const OPENYURT: Module = Module {
    name: "openyurt",
    versions: &["github.com/openyurtio/openyurt/pkg/projectinfo.gitVersion=v1.5.0"],
};

/// What links are compared with.
pub(crate) const KONNECTIVITY: Module = Module {
    name: "konnectivity",
    versions: &[],
};

/// Builds the module's programs if they are missing or of another state.
pub(crate) fn ensure(module: Module) -> Result<()> {
    let source = shell::root().join("tests/programs").join(module.name);
    let output = shell::target_directory().join("programs").join(module.name);
    let stamp = output.join("stamp");
    let wanted = state(module, &source)?;
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    println!(
        "Building {} (the first time takes minutes) ...",
        module.name
    );
    build(module, &source, &output)?;
    fs::write(&stamp, wanted).with_context(|| format!("write {}", stamp.display()))
}

fn build(module: Module, source: &Path, output: &Path) -> Result<()> {
    fs::create_dir_all(output).with_context(|| format!("make {}", output.display()))?;
    let mut go = Command::new(setup::go()?);
    go.current_dir(source)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "")
        .env("GOTOOLCHAIN", "local")
        .args(["build", "-mod=readonly", "-trimpath", COMPILER_FLAGS])
        .args(["-ldflags", &linker_flags(module)])
        .arg("-o")
        .arg(directory(output))
        .args(packages(&source.join("tools.go"))?);
    shell::run(&mut go)
}

/// Without debug information, which the linker leaves out anyway.
const COMPILER_FLAGS: &str = "-gcflags=all=-dwarf=false";

fn linker_flags(module: Module) -> String {
    let settings = module
        .versions
        .iter()
        .map(|setting| format!(" -X {setting}"));
    format!("-s -w{}", settings.collect::<String>())
}

/// With a slash at its end it is a directory for several programs.
fn directory(output: &Path) -> PathBuf {
    output.join("")
}

/// The imports of `tools.go`.
fn packages(tools: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(tools).with_context(|| format!("read {}", tools.display()))?;
    let packages: Vec<_> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("_ \"")?.strip_suffix('"'))
        .map(str::to_owned)
        .collect();
    if packages.is_empty() {
        bail!("{} imports no programs", tools.display());
    }
    Ok(packages)
}

/// What the programs depend on, as a hash.
fn state(module: Module, source: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(COMPILER_FLAGS);
    hash.update(linker_flags(module));
    for file in ["go.mod", "go.sum", "tools.go"] {
        let path = source.join(file);
        hash.update(fs::read(&path).with_context(|| format!("read {}", path.display()))?);
    }
    Ok(hex::encode(hash.finalize()))
}
