//! Running other programs: shown before they run, judged by their exit status.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

/// The repository, whatever the current directory is.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a directory of the repository")
}

/// The `cargo` that runs us, in the repository.
pub(crate) fn cargo<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Builds every program, with the features that tests give the libraries: whoever runs those next compiles them once.
pub(crate) fn build_programs() -> Result<()> {
    let build = ["build", "--quiet", "--workspace", "--features"];
    run(cargo(build).arg("tokio/test-util"))
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => env::current_dir().unwrap_or_default().join(directory),
        None => root().join("target"),
    }
}

/// What this machine's compiler calls this machine.
pub(crate) fn host_triple() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let triple = output(
        Command::new(rustc)
            .args(["--print", "host-tuple"])
            .current_dir(root()),
    )?;
    Ok(triple.trim().to_owned())
}

/// Shows the command, runs it, fails if it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("+ {}", show(command));
    let status = command
        .status()
        .with_context(|| format!("start {}", show(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", show(command));
    }
    Ok(())
}

/// Runs the command quietly and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("start {}", show(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} failed ({}): {}",
            show(command),
            output.status,
            said.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where a program is, `sbin` directories included: not every user's PATH has them.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// One line for whoever is not root.
pub(crate) fn require_root(what: &str) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("{what} makes network namespaces and cgroups, which needs root: run it with sudo");
    }
    Ok(())
}

/// By what others can tell that they have the same bytes.
pub(crate) fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

/// The command as one would type it.
pub(crate) fn show(command: &Command) -> String {
    let settings = command.get_envs().filter_map(|(name, value)| {
        Some(format!(
            "{}={}",
            name.to_string_lossy(),
            value?.to_string_lossy()
        ))
    });
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let args = command
        .get_args()
        .map(|arg| arg.to_string_lossy().into_owned());
    settings
        .chain([program.into_owned()])
        .chain(args)
        .collect::<Vec<_>>()
        .join(" ")
}
