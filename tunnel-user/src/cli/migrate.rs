//! `culvert migrate check|clean`: what Yurt-Tunnel left in this machine's iptables.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use crate::yurt_tunnel::{self, Leftover, NatRules, Programs, ProgramsError, running_server};

/// What a Yurt-Tunnel server left on this machine; run it on the server's machine, as root.
#[derive(Args, Clone, Debug)]
pub struct MigrateArgs {
    #[command(subcommand)]
    command: MigrateCommand,

    /// Root of the file system that iptables is in, as a container sees it
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    root: PathBuf,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum MigrateCommand {
    /// Show Yurt-Tunnel's iptables rules; fails if there are any
    Check,
    /// Remove Yurt-Tunnel's iptables rules, and no others
    Clean,
}

/// The rules in one place, and the programs that work on them.
struct Table {
    leftover: Leftover,
    programs: Programs,
    rules: NatRules,
}

/// Runs the command; results go to stdout.
pub fn run(args: &MigrateArgs) -> anyhow::Result<()> {
    let found = yurt_tunnel::find().context(
        "cannot read this machine's netfilter tables: run it as root, with CAP_NET_ADMIN",
    )?;
    if found.is_empty() {
        writeln!(io::stdout(), "no iptables rules of Yurt-Tunnel's")?;
        return Ok(());
    }
    let server = running_server();
    rustix::process::chroot(&args.root)
        .and_then(|()| rustix::process::chdir("/"))
        .with_context(|| format!("cannot use --root {}", args.root.display()))?;
    match args.command {
        MigrateCommand::Check => check(&found, server),
        MigrateCommand::Clean => clean(found, server),
    }
}

/// What the kernel says is enough to know that there are some; to show them takes iptables.
fn check(found: &[Leftover], server: Option<u32>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for leftover in found {
        writeln!(out, "{leftover}")?;
        match Programs::find(leftover.backend, leftover.family)
            .and_then(|programs| programs.rules())
        {
            Ok(rules) => show(&mut out, &rules)?,
            Err(error @ ProgramsError::Missing { .. }) => writeln!(out, "  {error}")?,
            Err(error) => return Err(error.into()),
        }
    }
    let meaning = match server {
        Some(pid) => format!("its server runs (process {pid}) and keeps them"),
        None => "its server does not run here, so they lead nowhere".to_owned(),
    };
    bail!(
        "there are iptables rules of Yurt-Tunnel's, and {meaning}: `culvert migrate clean` removes them"
    )
}

fn clean(found: Vec<Leftover>, server: Option<u32>) -> anyhow::Result<()> {
    if let Some(pid) = server {
        bail!(
            "Yurt-Tunnel's server runs on this machine (process {pid}): it would put its rules back within a minute, and \
             nodes without an agent of culvert's are reached by them; end it first, which mostly removes them, too"
        );
    }
    // All of it is read before anything is changed.
    let tables = found.into_iter().map(Table::read);
    let tables = tables.collect::<Result<Vec<_>, _>>()?;
    let mut out = io::stdout().lock();
    let mut kept = 0;
    for Table {
        leftover,
        programs,
        rules,
    } in &tables
    {
        if !rules.is_clean() {
            programs.remove(rules)?;
        }
        let (backend, family) = (leftover.backend, leftover.family);
        let (removed, chains) = (rules.own.len(), rules.removable().count());
        writeln!(
            out,
            "{backend}, {family}: removed {removed} rules and {chains} chains"
        )?;
        for foreign in &rules.foreign {
            writeln!(out, "  not Yurt-Tunnel's, and left: {foreign}")?;
        }
        kept += rules.kept.len();
    }
    if kept > 0 {
        bail!(
            "{kept} chains stay, for rules that are not Yurt-Tunnel's: remove those by hand, then run it again"
        );
    }
    Ok(())
}

fn show(out: &mut impl Write, rules: &NatRules) -> io::Result<()> {
    for rule in &rules.own {
        writeln!(out, "  {rule}")?;
    }
    for rule in &rules.foreign {
        writeln!(out, "  not Yurt-Tunnel's: {rule}")?;
    }
    Ok(())
}

impl Table {
    fn read(leftover: Leftover) -> Result<Self, ProgramsError> {
        let programs = Programs::find(leftover.backend, leftover.family)?;
        let rules = programs.rules()?;
        Ok(Self {
            leftover,
            programs,
            rules,
        })
    }
}
