//! Where the BPF file system is open to everybody, as `mount -t bpf` makes it, the pins are not.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::Result;
use culvert_tests::{BpfMount, Cgroup, command};
use tunnel_user::redirect::{self, InstallError, Options, Redirect};

/// What `mount` makes of it.
const OPEN_TO_ALL: u32 = 0o1777;

fn options(cgroup: &Cgroup, mount: &BpfMount) -> Options {
    Options {
        cgroup: Some(cgroup.path().to_owned()),
        pin_root: mount.path().join("culvert"),
        ..Options::default()
    }
}

/// Runs it as a user who may do nothing special.
fn as_nobody(program: &str, args: &[&Path]) -> Result<String> {
    let setpriv = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--",
        program,
    ];
    let words = setpriv.iter().map(Path::new).chain(args.iter().copied());
    command::run("/usr/bin/setpriv", words)
}

fn refusal(options: &Options) -> InstallError {
    let refused = Redirect::install(options).map(drop).unwrap_err();
    // Neither asks for it nor removes it as if it were ours.
    for other in [
        redirect::refuse_in_use(options),
        redirect::uninstall(options).map(drop),
    ] {
        assert_eq!(other.unwrap_err().to_string(), refused.to_string());
    }
    refused
}

#[test]
fn a_directory_that_somebody_else_made_first_is_refused_with_the_way_out() {
    let cgroup = Cgroup::new("pins").unwrap();
    let mount = BpfMount::with_mode(OPEN_TO_ALL).unwrap();
    let options = options(&cgroup, &mount);
    let version = options.pin_root.join("v1");
    for directory in [options.pin_root.as_path(), &version] {
        as_nobody("mkdir", &[Path::new("-m777"), directory]).unwrap();
    }
    let error = refusal(&options);
    assert!(
        matches!(error, InstallError::ForeignPins { owner: 65534, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("rm -r"), "{error}");

    fs::remove_dir(&version).unwrap();
    fs::remove_dir(&options.pin_root).unwrap();
    Redirect::install(&options).unwrap();
}

#[test]
fn a_link_that_somebody_else_made_is_not_followed() {
    let cgroup = Cgroup::new("pins").unwrap();
    let mount = BpfMount::with_mode(OPEN_TO_ALL).unwrap();
    let options = options(&cgroup, &mount);
    let elsewhere = mount.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    as_nobody("ln", &[Path::new("-s"), &elsewhere, &options.pin_root]).unwrap();
    let error = refusal(&options);
    assert!(
        matches!(error, InstallError::NoPinDirectory { .. }),
        "{error}"
    );
}

#[test]
fn nobody_else_renames_removes_or_locks_what_is_pinned() {
    let cgroup = Cgroup::new("pins").unwrap();
    let mount = BpfMount::with_mode(OPEN_TO_ALL).unwrap();
    let options = options(&cgroup, &mount);
    // As the kubelet makes it for a hostPath.
    fs::create_dir(&options.pin_root).unwrap();
    fs::set_permissions(&options.pin_root, fs::Permissions::from_mode(0o755)).unwrap();
    let installed = Redirect::install(&options).unwrap();

    let pinned = installed.state().unwrap().pins.join("link_connect4");
    assert!(pinned.exists(), "{}", pinned.display());
    let root = options.pin_root.as_path();
    let moved = mount.path().join("moved");
    let attempts: [(&str, [&Path; 2]); 5] = [
        ("mv", [&pinned, &moved]),
        ("mv", [root, &moved]),
        ("rm", [Path::new("-f"), &pinned]),
        ("flock", [root, Path::new("true")]),
        ("ls", [Path::new("-d"), &pinned]),
    ];
    for (program, args) in attempts {
        as_nobody(program, &args).expect_err(program);
    }
    drop(installed);
    redirect::uninstall(&options).unwrap();
    assert!(!root.exists());
}
