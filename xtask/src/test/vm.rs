//! The vm tier: the kernel and e2e tests on other kernels, each booted under QEMU with an initramfs that holds
//! the test binaries and everything they run. Nothing is installed, no disk, no network card.

mod debian;
mod initramfs;
mod machine;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::tally::Tally;
use crate::{previous, shell};
use debian::Kernel;
use machine::Accelerator;

/// The oldest kernel we are asked about and the newest long-term one, both as Debian builds them.
pub(super) const SERIES: [&str; 2] = ["6.1", "6.12"];

/// Programs that the tests start.
const PROGRAMS: [&str; 4] = ["acceptor", "culvert", "probe", previous::PROGRAM];

/// Test binaries of the tests crate that run in the machine, in this order, and which of their tests:
/// emulated, everything takes too long, and neither the harness nor most of e2e depends on the kernel. What does of
/// servers that stop and take over, the first binary has.
const TESTS: [(&str, &str); 2] = [
    ("kernel", "redirect::"),
    (
        "e2e",
        "transparent:: upgrades::the_version_before upgrades::servers_take_over restarts::nothing_is_left",
    ),
];
/// What sets the machine's clock, and gives AppArmor profiles: one after the other, and in the machine with the oldest
/// kernel only, for it does not depend on that.
const MACHINE_TESTS: (&str, &str) = ("machine", "--test-threads=1");

/// Test binaries that run on this kernel.
fn tests_on(kernel: &Kernel) -> impl Iterator<Item = (&'static str, &'static str)> {
    let is_oldest = kernel.release.starts_with(&format!("{}.", SERIES[0]));
    TESTS.into_iter().chain(is_oldest.then_some(MACHINE_TESTS))
}

/// What each machine boots.
pub(super) struct Machines {
    images: Vec<(Kernel, PathBuf)>,
    accelerator: Accelerator,
}

/// Builds the tests, fetches the kernels, packs both.
pub(super) fn prepare(series: &[String], filter: Option<&str>) -> Result<Machines> {
    let directory = shell::target_directory().join("vm");
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let programs = build()?;
    let images = series
        .iter()
        .map(|series| {
            let kernel = debian::fetch(series, &directory)?;
            let image = initramfs::pack(&kernel, &programs, filter, &directory)?;
            Ok((kernel, image))
        })
        .collect::<Result<Vec<_>>>()?;
    let (kernel, image) = images.first().context("no kernel was named")?;
    Ok(Machines {
        accelerator: Accelerator::that_works(kernel, image)?,
        images,
    })
}

impl Machines {
    pub(super) fn run(&self) -> Result<Tally> {
        let mut total = Tally::default();
        for (kernel, image) in &self.images {
            total += self.boot(kernel, image)?;
        }
        Ok(total)
    }

    fn boot(&self, kernel: &Kernel, image: &Path) -> Result<Tally> {
        println!("vm: Linux {}", kernel.release);
        let mut tally = machine::boot(kernel, image, self.accelerator)?;
        println!("vm: Linux {}: {tally}", kernel.release);
        for failure in &mut tally.failures {
            failure.push_str(" on Linux ");
            failure.push_str(&kernel.release);
        }
        Ok(tally)
    }
}

/// What goes into the machine: name there, file here.
struct Program {
    name: String,
    file: PathBuf,
}

fn build() -> Result<Vec<Program>> {
    previous::ensure()?;
    super::build()?;
    let mut programs: Vec<_> = PROGRAMS
        .map(|name| Program {
            name: name.into(),
            file: shell::target_directory().join("debug").join(name),
        })
        .into();
    for (test, _) in TESTS.into_iter().chain([MACHINE_TESTS]) {
        let arguments = [
            "test",
            "--workspace",
            "--no-run",
            "--message-format=json-render-diagnostics",
            "--test",
            test,
        ];
        let messages = shell::output(&mut shell::cargo(arguments))?;
        let file = messages.lines().find_map(|line| executable(line, test));
        let Some(file) = file else {
            bail!("cargo built no test binary {test}")
        };
        programs.push(Program {
            name: test.into(),
            file,
        });
    }
    Ok(programs)
}

/// The file that a `compiler-artifact` message of cargo names, if it is that of the test.
fn executable(line: &str, test: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let target = &message["target"];
    let wanted = target["name"] == test && target["kind"][0] == "test";
    if wanted {
        message["executable"].as_str().map(PathBuf::from)
    } else {
        None
    }
}
