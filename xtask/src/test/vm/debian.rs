//! Debian's cloud kernels: fetched as packages and unpacked beside the build, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// An unpacked kernel.
pub(super) struct Kernel {
    /// `uname -r`.
    pub(super) release: String,
    /// What the machine boots.
    pub(super) image: PathBuf,
    /// Holds `lib/modules/<release>`.
    pub(super) root: PathBuf,
}

/// The newest cloud kernel of the series that apt knows.
pub(super) fn fetch(series: &str, directory: &Path) -> Result<Kernel> {
    let package = newest(series)?;
    let root = directory.join(&package);
    if !root.join("complete").exists() {
        let _ = fs::remove_dir_all(&root);
        unpack(&package, &root)?;
        fs::write(root.join("complete"), "")?;
    }
    let release = package.trim_start_matches("linux-image-").to_owned();
    let image = root.join("boot").join(format!("vmlinuz-{release}"));
    // Debian moved the modules below /usr; depmod and modprobe look below /lib.
    if !root.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
    }
    if !image.is_file() || !root.join("lib/modules").join(&release).is_dir() {
        bail!("the package {package} holds no kernel {release} with modules");
    }
    Ok(Kernel {
        release,
        image,
        root,
    })
}

fn newest(series: &str) -> Result<String> {
    let pattern = format!(
        "^linux-image-{}\\.[0-9.]+.*-cloud-amd64$",
        series.replace('.', "\\.")
    );
    let listed =
        shell::output(Command::new("apt-cache").args(["search", "--names-only", &pattern]))?;
    let packages = listed.lines().filter_map(|line| line.split(' ').next());
    packages
        .max_by_key(|package| numbers(package))
        .map(str::to_owned)
        .with_context(|| format!("apt knows no cloud kernel {series} (apt-get update?)"))
}

/// The numbers in a version, so that 6.12.9 comes before 6.12.10.
fn numbers(package: &str) -> Vec<u64> {
    package
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

fn unpack(package: &str, root: &Path) -> Result<()> {
    fs::create_dir_all(root).with_context(|| format!("make {}", root.display()))?;
    let mut download = Command::new("apt-get");
    download.args([
        "-q",
        "-o",
        "Acquire::Retries=3",
        "-o",
        "APT::Sandbox::User=root",
    ]);
    shell::run(download.args(["download", package]).current_dir(root))?;
    let files = root.read_dir()?.flatten().map(|entry| entry.path());
    let archive = files
        .into_iter()
        .find(|path| path.extension().is_some_and(|end| end == "deb"))
        .with_context(|| format!("apt-get downloaded no package {package}"))?;
    shell::output(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(root))?;
    fs::remove_file(&archive).context("remove the package")
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn versions_compare_by_number() {
        assert!(numbers("linux-image-6.12.9+deb12") < numbers("linux-image-6.12.10+deb12"));
        assert!(numbers("linux-image-6.1.0-9-cloud") < numbers("linux-image-6.1.0-50-cloud"));
    }
}
