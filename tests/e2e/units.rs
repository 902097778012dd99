//! The units of `deploy/systemd` are ones that systemd takes, and that leave little open.

use std::{fs, path::PathBuf};

use culvert_tests::{cluster::repository, command, unique};

/// The two units, started with a program that is there.
fn units() -> (tempfile::TempDir, [PathBuf; 2]) {
    let directory = unique::scratch_dir("units").unwrap();
    let units = ["culvert-agent.service", "culvert-server.service"].map(|name| {
        let unit = repository().join("deploy/systemd").join(name);
        let unit = fs::read_to_string(unit).unwrap();
        let copy = directory.path().join(name);
        fs::write(&copy, unit.replace("/usr/local/bin/culvert", "/bin/true")).unwrap();
        copy
    });
    (directory, units)
}

#[test]
fn systemd_understands_every_line() {
    let (_directory, units) = units();
    for unit in &units {
        // Unknown settings are a warning and no failure: with `--man=no` nothing else is said.
        let verify = ["verify", "--man=no", unit.to_str().unwrap()];
        let mut analyze = std::process::Command::new("systemd-analyze");
        let said = analyze.args(verify).output().unwrap();
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.contains("culvert-"), "{}: {said}", unit.display());
    }
}

/// systemd's own measure goes from 0 to 10: what is open, by how much it matters. In tenths here.
#[test]
fn systemd_finds_little_left_open() {
    let (_directory, [agent, server]) = units();
    for (unit, most) in [(agent, 20), (server, 30)] {
        let offline = ["security", "--offline=yes", "--no-pager", "--threshold"];
        let most = format!("{most}");
        let words = offline
            .into_iter()
            .chain([most.as_str(), unit.to_str().unwrap()]);
        command::run("systemd-analyze", words).unwrap();
    }
}
