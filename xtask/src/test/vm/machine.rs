//! Boots a kernel under QEMU and reads what its `/init` says on the serial console.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::debian::Kernel;
use super::tests_on;
use crate::test::tally::{Tally, lines};

/// How the processor is made.
#[derive(Debug, Clone, Copy)]
pub(super) enum Accelerator {
    /// Hardware virtualisation.
    Kvm,
    /// Emulation: slow, but it works everywhere.
    Emulation,
}

/// Emulated, a kernel boots in three to ten seconds; a KVM that does not get there by then is no KVM.
const BOOT: Duration = Duration::from_secs(15);
/// Twice what it takes beside a cluster, which comes first.
const TESTS_LIMIT: Duration = Duration::from_mins(40);

impl Accelerator {
    /// KVM if it boots this kernel: a nested one may have a device and not work.
    pub(super) fn that_works(kernel: &Kernel, image: &Path) -> Result<Self> {
        if Path::new("/dev/kvm").exists() {
            let mut booted = false;
            let ended = console(
                command(kernel, image, Self::Kvm, " culvert.boot_only"),
                BOOT,
                |line| {
                    booted |= line.contains("CULVERT-VM booted");
                },
            )?;
            if booted && ended {
                println!("vm: KVM works here");
                return Ok(Self::Kvm);
            }
            println!("vm: /dev/kvm does not boot a kernel here; emulating");
        }
        Ok(Self::Emulation)
    }
}

/// Boots, shows the console, counts results. A machine that does not come to its end has failed.
pub(super) fn boot(kernel: &Kernel, image: &Path, accelerator: Accelerator) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut exits = Vec::new();
    let mut done = false;
    let ended = console(
        command(kernel, image, accelerator, ""),
        TESTS_LIMIT,
        |line| {
            println!("[{}] {line}", kernel.release);
            tally.take(line);
            match line.split_once("CULVERT-VM ") {
                Some((_, "done")) => done = true,
                Some((_, said)) => exits.push(said.to_owned()),
                None => {}
            }
        },
    )?;
    if !ended {
        bail!(
            "Linux {} did not end in {} s",
            kernel.release,
            TESTS_LIMIT.as_secs()
        );
    }
    let expected: Vec<_> = tests_on(kernel)
        .map(|(test, _)| format!("{test} exit 0"))
        .collect();
    if !done || (exits != expected && tally.failed == 0) {
        bail!(
            "Linux {} did not run the tests to their end: {exits:?}",
            kernel.release
        );
    }
    Ok(tally)
}

fn command(kernel: &Kernel, image: &Path, accelerator: Accelerator, more: &str) -> Command {
    let (accelerator, clock): ([&str; 4], _) = match accelerator {
        Accelerator::Kvm => (["-accel", "kvm", "-cpu", "host"], ""),
        // Linux does not trust this counter by itself, and reads a clock that is emulated as a device instead.
        Accelerator::Emulation => (
            ["-accel", "tcg,thread=multi", "-cpu", "max"],
            " clocksource=tsc tsc=reliable",
        ),
    };
    // What runs beside it on a real clock comes first; but a machine that stands still for seconds loses its sessions.
    let mut command = Command::new("nice");
    command
        .args(["-n", "10", "qemu-system-x86_64"])
        .args(accelerator)
        .args([
            "-smp",
            "2",
            "-m",
            "3072",
            "-nographic",
            "-no-reboot",
            "-nic",
            "none",
        ])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(image)
        // An emulated processor leaks nothing, and guarding it costs time.
        .args([
            "-append",
            &format!("console=ttyS0 panic=-1 quiet mitigations=off{clock}{more}"),
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// Hands the console's lines on until the machine is off; false when it had to be ended after `limit`.
fn console(mut command: Command, limit: Duration, mut take: impl FnMut(&str)) -> Result<bool> {
    let mut machine = Machine(command.spawn().context("start qemu-system-x86_64")?);
    let stdout = machine.0.stdout.take().context("stdout is piped")?;
    let (line_tx, line_rx) = mpsc::sync_channel::<String>(1024);
    let reader = thread::spawn(move || {
        // Fails once nobody wants more lines, and then there is nothing to do with them.
        lines(stdout, |line| drop(line_tx.send(line.to_owned())));
    });
    let deadline = Instant::now() + limit;
    let ended = loop {
        match line_rx.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => take(printable(&line).trim()),
            Err(mpsc::RecvTimeoutError::Timeout) => break false,
            Err(mpsc::RecvTimeoutError::Disconnected) => break true,
        }
    };
    drop((machine, line_rx));
    reader.join().ok().context("read the console")?;
    Ok(ended)
}

/// Ends with its guard.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Without the firmware's cursor movements.
fn printable(line: &str) -> String {
    line.chars().filter(|c| !c.is_control()).collect()
}
