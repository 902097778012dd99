//! The images that a cluster needs besides Culvert's: one that holds a pod's namespaces, those with tools and clients,
//! and Prometheus.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::archive::Image;
use super::layer::Layer;
use super::{directory, write};
use crate::shell;

/// Debian's statically linked busybox is a whole system in one file.
const BUSYBOX: &str = "bin/busybox";

/// Makes them where they are missing.
pub(crate) fn ensure() -> Result<()> {
    let images: [(_, fn() -> _); 4] = [
        ("pause.tar", pause),
        ("busybox.tar", busybox),
        ("clients.tar", clients),
        ("prometheus.tar", prometheus),
    ];
    for (file, make) in images {
        let output = directory().join(file);
        if !output.exists() {
            write(&make()?, &output)?;
        }
    }
    Ok(())
}

/// Sleeps until it is killed: as the first process of its pod it gets no signal that it did not ask for.
fn pause() -> Result<Image> {
    Ok(Image {
        name: "culvert.dev/pause:1".into(),
        entrypoint: vec![format!("/{BUSYBOX}"), "sleep".into(), "2147483647".into()],
        labels: Vec::new(),
        files: Layer::default()
            .directory("bin", 0o755)
            .file(BUSYBOX, 0o755, program("busybox")?),
    })
}

fn busybox() -> Result<Image> {
    Ok(Image {
        name: "culvert.dev/busybox:1".into(),
        entrypoint: Vec::new(),
        labels: Vec::new(),
        files: tools()?,
    })
}

/// The same with a curl, for pods that speak TLS.
fn clients() -> Result<Image> {
    Ok(Image {
        name: "culvert.dev/clients:1".into(),
        entrypoint: Vec::new(),
        labels: Vec::new(),
        files: with_program(tools()?, "curl")?,
    })
}

fn tools() -> Result<Layer> {
    let files = Layer::default()
        .directory("bin", 0o755)
        .directory("etc", 0o755)
        .directory("tmp", 0o1777)
        .file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n".into())
        .file(BUSYBOX, 0o755, program("busybox")?);
    let tools = shell::output(Command::new("busybox").arg("--list"))?;
    let tools = tools.lines().filter(|tool| *tool != "busybox");
    Ok(tools.fold(files, |files, tool| {
        files.link(&format!("bin/{tool}"), "busybox")
    }))
}

fn prometheus() -> Result<Image> {
    Ok(Image {
        name: "culvert.dev/prometheus:1".into(),
        entrypoint: vec!["/bin/prometheus".into()],
        labels: Vec::new(),
        files: with_program(Layer::default(), "prometheus")?,
    })
}

/// Debian's, with the libraries that it asks for where it asks for them.
fn with_program(files: Layer, name: &str) -> Result<Layer> {
    let path =
        shell::find(name).with_context(|| format!("{name} is missing (cargo xtask setup)"))?;
    let libraries = shell::output(Command::new("ldd").arg(&path))?;
    let libraries = libraries
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    let mut files = files.file(&format!("bin/{name}"), 0o755, read(&path)?);
    for library in libraries {
        files = files.file(
            library.trim_start_matches('/'),
            0o755,
            read(Path::new(library))?,
        );
    }
    Ok(files)
}

fn program(name: &str) -> Result<Vec<u8>> {
    let path =
        shell::find(name).with_context(|| format!("{name} is missing (cargo xtask setup)"))?;
    read(&path)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}
