//! Packs the machine's root file system: test binaries, the tools they run, libraries, kernel modules, `/init`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::debian::Kernel;
use super::{Program, tests_on};
use crate::shell;

const INIT: &str = include_str!("init.sh");

/// Tools that tests run, besides those of busybox. What runs other programs is a real one as well: busybox
/// would run its own applets instead.
const TOOLS: [&str; 19] = [
    "env",
    "timeout",
    "apparmor_parser",
    "bpftool",
    "capsh",
    "conntrack",
    "curl",
    "getcap",
    "ip",
    "iptables",
    "ip6tables",
    "nft",
    "nsenter",
    "openssl",
    "setcap",
    "setpriv",
    "ss",
    "taskset",
    "unshare",
];

/// What harness and tests need of the kernel; what these need comes along.
const MODULES: [&str; 23] = [
    "dummy",
    "inet_diag",
    "ip6_tables",
    "ip6table_filter",
    "ip6table_nat",
    "ip_tables",
    "iptable_filter",
    "iptable_nat",
    "nf_conntrack",
    "nf_nat",
    "nf_tables",
    "nft_chain_nat",
    "nft_compat",
    "nft_ct",
    "nft_masq",
    "nft_nat",
    "nft_numgen",
    "nft_redir",
    "tcp_diag",
    "veth",
    "xt_conntrack",
    "xt_nat",
    "xt_REDIRECT",
];

/// Plug-ins that iptables loads by name.
const XTABLES: &str = "/usr/lib/x86_64-linux-gnu/xtables";

pub(super) fn pack(
    kernel: &Kernel,
    programs: &[Program],
    filter: Option<&str>,
    directory: &Path,
) -> Result<PathBuf> {
    let tree = directory.join(format!("root-{}", kernel.release));
    let _ = fs::remove_dir_all(&tree);
    for below in [
        "culvert", "usr/bin", "bin", "proc", "sys", "dev", "run", "tmp", "etc", "modules", "root",
    ] {
        fs::create_dir_all(tree.join(below))?;
    }
    add_programs(&tree, programs)?;
    add_tools(&tree)?;
    add_modules(&tree, kernel)?;
    fs::write(tree.join("init"), INIT)?;
    fs::set_permissions(tree.join("init"), fs::Permissions::from_mode(0o755))?;
    fs::write(tree.join("etc/tests"), which_tests(kernel, filter))?;
    fs::write(
        tree.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
    )?;
    fs::write(tree.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    fs::write(
        tree.join("etc/hosts"),
        "127.0.0.1 localhost\n::1 localhost\n",
    )?;
    let image = directory.join(format!("initramfs-{}.cpio", kernel.release));
    archive(&tree, &image)?;
    fs::remove_dir_all(&tree).context("remove the unpacked tree")?;
    Ok(image)
}

/// The lines of `/etc/tests`.
fn which_tests(kernel: &Kernel, filter: Option<&str>) -> String {
    let line = |(test, usual)| format!("{test} {}\n", filter.unwrap_or(usual));
    tests_on(kernel).map(line).collect()
}

fn add_programs(tree: &Path, programs: &[Program]) -> Result<()> {
    for program in programs {
        let there = tree.join("culvert").join(&program.name);
        let mut strip = Command::new("strip");
        strip
            .arg("--strip-debug")
            .arg("-o")
            .arg(&there)
            .arg(&program.file);
        shell::output(&mut strip)?;
        add_libraries(tree, &program.file)?;
    }
    Ok(())
}

/// Tools that this machine lacks are left out: a test that runs one says so.
fn add_tools(tree: &Path) -> Result<()> {
    let busybox = shell::find("busybox").context("busybox (cargo xtask setup)")?;
    copy(&busybox, &tree.join("bin/busybox"))?;
    // A real shell: that of busybox runs its own applets instead of the programs of those names.
    let shell = shell::find("dash").context("dash (cargo xtask setup)")?;
    copy(&shell, &tree.join("bin/sh"))?;
    add_libraries(tree, &shell)?;
    for tool in TOOLS {
        if let Some(file) = shell::find(tool) {
            copy(&file, &tree.join("usr/bin").join(tool))?;
            add_libraries(tree, &file)?;
        }
    }
    for plugin in Path::new(XTABLES)
        .read_dir()
        .into_iter()
        .flatten()
        .flatten()
    {
        copy(
            &plugin.path(),
            &tree.join(&XTABLES[1..]).join(plugin.file_name()),
        )?;
    }
    Ok(())
}

fn add_libraries(tree: &Path, program: &Path) -> Result<()> {
    // A static program has none, which ldd reports as a failure.
    let Ok(listed) = shell::output(Command::new("ldd").arg(program)) else {
        return Ok(());
    };
    for line in listed.lines() {
        let path = line.split_whitespace().find(|word| word.starts_with('/'));
        if let Some(path) = path {
            copy(Path::new(path), &tree.join(&path[1..]))?;
        }
    }
    Ok(())
}

/// Copies what a link leads to; the same file is asked for many times.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        return Ok(());
    }
    fs::create_dir_all(to.parent().unwrap_or(to))?;
    fs::copy(from, to).with_context(|| format!("copy {}", from.display()))?;
    Ok(())
}

/// Copies the modules, unpacked, and lists them in the order in which they have to be loaded.
fn add_modules(tree: &Path, kernel: &Kernel) -> Result<()> {
    shell::output(
        Command::new("depmod")
            .arg("-b")
            .arg(&kernel.root)
            .arg(&kernel.release),
    )?;
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for module in MODULES {
        for file in with_dependencies(kernel, module)? {
            if seen.insert(file.clone()) {
                order.push(add_module(tree, &file)?);
            }
        }
    }
    fs::write(tree.join("modules/order"), order.join("\n") + "\n")?;
    Ok(())
}

/// The files to load for a module, itself last; none where it is built in.
fn with_dependencies(kernel: &Kernel, module: &str) -> Result<Vec<PathBuf>> {
    let mut ask = Command::new("modprobe");
    ask.arg("-d")
        .arg(&kernel.root)
        .args(["-S", &kernel.release, "--show-depends", module]);
    let listed = shell::output(&mut ask).with_context(|| format!("the module {module}"))?;
    let files = listed
        .lines()
        .filter_map(|line| line.strip_prefix("insmod "));
    Ok(files
        .filter_map(|file| file.split(' ').next())
        .map(PathBuf::from)
        .collect())
}

fn add_module(tree: &Path, file: &Path) -> Result<String> {
    let name = file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let plain = name.trim_end_matches(".xz").to_owned();
    let there = tree.join("modules").join(&plain);
    if name == plain {
        copy(file, &there)?;
    } else {
        let output = fs::File::create(&there)?;
        let status = Command::new("xz")
            .arg("-dc")
            .arg(file)
            .stdout(output)
            .status()?;
        if !status.success() {
            bail!("unpack {}: xz failed ({status})", file.display());
        }
    }
    Ok(plain)
}

fn archive(tree: &Path, image: &Path) -> Result<()> {
    let output = fs::File::create(image).with_context(|| format!("create {}", image.display()))?;
    let mut pack = Command::new("sh");
    pack.args([
        "-c",
        "find . -print0 | cpio --null --create --format=newc --quiet",
    ]);
    let status = pack
        .current_dir(tree)
        .stdin(Stdio::null())
        .stdout(output)
        .status()?;
    if !status.success() {
        bail!("cpio failed ({status})");
    }
    Ok(())
}
