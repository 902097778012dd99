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
    worker: Facts,
}

pub(super) fn write(
    directory: &Directory,
    lab: LabNames,
    machines: &[Machine],
    worker: &Machine,
) -> Result<()> {
    let stored = Stored {
        lab,
        machines: machines.iter().map(Machine::facts).collect(),
        worker: worker.facts(),
    };
    directory.write(FILE, &stored)
}

pub(super) fn read(directory: &Directory) -> Result<(Lab, Vec<Machine>, Machine)> {
    let stored: Stored = directory.read(FILE)?.with_context(|| {
        let root = directory.root().display();
        format!("there is no cluster in {root} (cargo xtask cluster up)")
    })?;
    let lab = Lab::of_another(&stored.lab)?;
    let machines = stored.machines.into_iter();
    let machines = machines
        .map(|facts| Machine::of(directory, &lab, facts))
        .collect();
    let worker = Machine::of(directory, &lab, stored.worker);
    Ok((lab, machines, worker))
}

/// The machines of a cluster that may be half made or half removed.
pub(super) fn machine_names(directory: &Directory) -> Result<Vec<String>> {
    let stored: Option<Stored> = directory.read(FILE)?;
    let machines = stored.into_iter().flat_map(|stored| {
        let worker = std::iter::once(stored.worker);
        stored.machines.into_iter().chain(worker)
    });
    Ok(machines.map(Facts::into_name).collect())
}
