//! `cargo xtask cluster compare`: Yurt-Tunnel and Culvert, one after the other, on clusters made alike.
//!
//! ```text
//! for each tunnel:  new cluster ─> install ─> every row of `rows`, by the same code ─> cluster gone
//! ```
//! A row asks the cluster or its clients, never a tunnel: it knows no more of one than of the other.

mod clients;
mod rows;
mod stage;
mod table;
mod tunnel;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use rows::{ROWS, Row};
use stage::Stage;
use table::Table;
use tunnel::TUNNELS;

#[derive(Parser)]
#[command(name = "compare", about = "Yurt-Tunnel and Culvert side by side")]
struct Args {
    /// Only rows whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Only the tunnel whose name contains this
    #[arg(long, default_value = "")]
    tunnel: String,
}

fn main() -> ExitCode {
    match compare(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(args: &Args) -> Result<()> {
    let wanted = |row: &&Row| row.always || row.name.contains(&args.only);
    let rows: Vec<_> = ROWS.iter().filter(wanted).collect();
    let mut table = Table::of(&rows);
    let tunnels = TUNNELS.iter();
    let measured = tunnels
        .filter(|tunnel| tunnel.name.contains(&args.tunnel))
        .try_for_each(|tunnel| {
            eprintln!("{}: a cluster", tunnel.name);
            let stage = Stage::set(tunnel)?;
            let results = rows.iter().map(|row| row.result(&stage));
            table.add(tunnel.name, results.collect::<Result<_>>()?);
            Ok(())
        });
    // Also when the second could not be measured: the first took its minutes.
    print!("{}", table.to_markdown());
    measured
}
