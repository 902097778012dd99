//! What a process needs to work with a cluster that another one made.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::machine::Facts;
use super::{Directory, Machine};
use crate::Lab;
use crate::lab::LabNames;

const FILE: &str = "cluster.json";

#[derive(Serialize, Deserialize)]
struct Stored {
    lab: LabNames,
    machines: Vec<Facts>,
}

pub(super) fn write(directory: &Directory, lab: LabNames, machines: &[Machine]) -> Result<()> {
    let machines = machines.iter().map(Machine::facts).collect();
    directory.write(FILE, &Stored { lab, machines })
}

pub(super) fn read(directory: &Directory) -> Result<(Lab, Vec<Machine>)> {
    let stored: Stored = directory.read(FILE)?.with_context(|| {
        let root = directory.root().display();
        format!("there is no cluster in {root} (cargo xtask cluster up)")
    })?;
    let lab = Lab::of_another(&stored.lab)?;
    let machines = stored.machines.into_iter();
    let machines = machines
        .map(|facts| Machine::of(directory, &lab, facts))
        .collect();
    Ok((lab, machines))
}

/// The machines of a cluster that may be half made or half removed.
pub(super) fn machine_names(directory: &Directory) -> Result<Vec<String>> {
    let stored: Option<Stored> = directory.read(FILE)?;
    let machines = stored.map(|stored| stored.machines).unwrap_or_default();
    Ok(machines.into_iter().map(Facts::into_name).collect())
}
