//! The programs of iptables: one pair reads and writes the tables of its own kind and family.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Backend, NatRules, TABLE};
use crate::model::Family;

/// Where they are, if the environment does not say.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// `iptables-save` and `iptables-restore` of one kind and family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    save: PathBuf,
    restore: PathBuf,
}

/// Why a table cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// There are none that work on these tables.
    #[error(
        "the rules are in the tables of {backend} iptables, and no {name} for them is on this machine: install iptables, \
         or name the machine's root with --root if this is a container"
    )]
    Missing {
        /// Whose tables.
        backend: Backend,
        /// What is missing.
        name: &'static str,
    },
    /// One cannot be run.
    #[error("cannot run {}", program.display())]
    Unusable {
        /// Which.
        program: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// One did not do what it should.
    #[error("{} failed: {said}", program.display())]
    Failed {
        /// Which.
        program: PathBuf,
        /// What it said.
        said: String,
    },
}

impl Programs {
    /// Looks for those that work on these tables.
    pub fn find(backend: Backend, family: Family) -> Result<Self, ProgramsError> {
        let (bare, own) = names(backend, family);
        for name in [own, bare] {
            let pair = [format!("{name}-save"), format!("{name}-restore")];
            let [Some(save), Some(restore)] = pair.map(|name| in_path(&name)) else {
                continue;
            };
            if backend_of(&save)? == backend {
                return Ok(Self { save, restore });
            }
        }
        Err(ProgramsError::Missing {
            backend,
            name: bare,
        })
    }

    /// What is in table `nat`.
    pub fn rules(&self) -> Result<NatRules, ProgramsError> {
        let saved = run(&self.save, &["-t", TABLE], "")?;
        Ok(NatRules::parse(&saved))
    }

    /// Removes what is Yurt-Tunnel's, all of it or nothing.
    pub fn remove(&self, rules: &NatRules) -> Result<(), ProgramsError> {
        // Whoever else writes at the moment holds a lock.
        let flags = ["--noflush", "--wait", "10"];
        run(&self.restore, &flags, &rules.removal()).map(drop)
    }
}

fn names(backend: Backend, family: Family) -> (&'static str, &'static str) {
    match (family, backend) {
        (Family::V4, Backend::Nftables) => ("iptables", "iptables-nft"),
        (Family::V4, Backend::Legacy) => ("iptables", "iptables-legacy"),
        (Family::V6, Backend::Nftables) => ("ip6tables", "ip6tables-nft"),
        (Family::V6, Backend::Legacy) => ("ip6tables", "ip6tables-legacy"),
    }
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let fixed = DIRECTORIES.into_iter().map(PathBuf::from);
    let mut directories = std::env::split_paths(&path).chain(fixed);
    directories.find_map(|directory| Some(directory.join(name)).filter(|file| file.is_file()))
}

/// Before 1.8 there was one kind, and no word about it.
fn backend_of(program: &Path) -> Result<Backend, ProgramsError> {
    let version = run(program, &["--version"], "")?;
    let is_nftables = version.contains("(nf_tables)");
    Ok(if is_nftables {
        Backend::Nftables
    } else {
        Backend::Legacy
    })
}

fn run(program: &Path, args: &[&str], input: &str) -> Result<String, ProgramsError> {
    let unusable = |cause| ProgramsError::Unusable {
        program: program.to_owned(),
        cause,
    };
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(unusable)?;
    // It says nothing before it has read all, so neither waits for the other.
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(unusable)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(ProgramsError::Failed {
            program: program.to_owned(),
            said: said.trim().to_owned(),
        });
    }
    written.map_err(unusable)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
