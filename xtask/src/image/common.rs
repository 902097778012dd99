//! The images that a cluster needs besides Culvert's: one that holds a pod's namespaces, and one with tools.

use std::fs;
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
    for (file, make) in [("pause.tar", pause as fn() -> _), ("busybox.tar", busybox)] {
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
            .file(BUSYBOX, 0o755, program()?),
    })
}

fn busybox() -> Result<Image> {
    let files = Layer::default()
        .directory("bin", 0o755)
        .directory("etc", 0o755)
        .directory("tmp", 0o1777)
        .file("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n".into())
        .file(BUSYBOX, 0o755, program()?);
    let tools = shell::output(Command::new("busybox").arg("--list"))?;
    let tools = tools.lines().filter(|tool| *tool != "busybox");
    let files = tools.fold(files, |files, tool| {
        files.link(&format!("bin/{tool}"), "busybox")
    });
    Ok(Image {
        name: "culvert.dev/busybox:1".into(),
        entrypoint: Vec::new(),
        labels: Vec::new(),
        files,
    })
}

fn program() -> Result<Vec<u8>> {
    let path = shell::find("busybox").context("busybox is missing (cargo xtask setup)")?;
    fs::read(&path).with_context(|| format!("read {}", path.display()))
}
