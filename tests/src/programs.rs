//! Where the built programs are: beside the test binary, or where `CULVERT_BIN_DIR` says.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// The `culvert` binary.
pub fn culvert() -> Result<PathBuf> {
    find("culvert", "cargo build -p tunnel-user")
}

/// The `culvert` binary of the version before.
pub fn previous_culvert() -> Result<PathBuf> {
    find("previous-culvert", "cargo xtask test builds it")
}

/// The `probe` binary, see [`crate::report`].
pub fn probe() -> Result<PathBuf> {
    find("probe", "cargo build -p culvert-tests")
}

/// The `acceptor` binary: the smallest server behind the redirect.
pub fn acceptor() -> Result<PathBuf> {
    find("acceptor", "cargo build -p culvert-tests")
}

/// The `cluster` binary, which makes and owns a cluster.
pub fn cluster() -> Result<PathBuf> {
    find("cluster", "cargo build -p culvert-tests")
}

/// A program of one of the Go modules below `tests/programs`; `CULVERT_PROGRAMS_DIR` says where they are if not in
/// the target directory.
pub fn of_module(module: &str, name: &str) -> Result<PathBuf> {
    let directory = match env::var_os("CULVERT_PROGRAMS_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => target_directory()?.join("programs"),
    };
    let path = directory.join(module).join(name);
    if !path.is_file() {
        bail!(
            "there is no {} (cargo xtask cluster build; konnectivity: cargo xtask bench tunnel)",
            path.display()
        );
    }
    Ok(path)
}

/// The Kubernetes that a cluster runs; `CULVERT_KUBERNETES=newest` chooses the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kubernetes {
    /// The one of all tests, with Debian's containerd.
    Usual,
    /// The newest that the Go at hand builds, with a containerd as its kubelet wants it.
    Newest,
}

impl Kubernetes {
    /// What the environment chooses.
    pub fn chosen() -> Result<Self> {
        match env::var("CULVERT_KUBERNETES").as_deref() {
            Err(env::VarError::NotPresent) | Ok("" | "usual") => Ok(Self::Usual),
            Ok("newest") => Ok(Self::Newest),
            other => bail!("CULVERT_KUBERNETES is usual or newest, not {other:?}"),
        }
    }

    /// One of its programs.
    pub fn program(self, name: &str) -> Result<PathBuf> {
        match self {
            Self::Usual => of_module("kubernetes", name),
            Self::Newest => of_module("kubernetes-newest", name),
        }
    }

    /// The container runtime, and the shim that it starts for each pod; by name where they are Debian's.
    pub fn container_runtime(self) -> Result<(PathBuf, Option<PathBuf>)> {
        match self {
            Self::Usual => Ok(("containerd".into(), None)),
            Self::Newest => Ok((
                of_module("containerd", "containerd")?,
                Some(of_module("containerd", "containerd-shim-runc-v2")?),
            )),
        }
    }
}

/// The directory of all that cargo builds.
pub fn target_directory() -> Result<PathBuf> {
    let profile = profile_directory()?;
    let target = profile.parent().context("target/<profile>")?;
    Ok(target.to_owned())
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
