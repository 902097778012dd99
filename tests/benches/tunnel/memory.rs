//! What server and agent hold for idle connections. Both are fresh: what an allocator kept from
//! earlier work would hide it.

use std::time::Duration;

use anyhow::Result;
use culvert_tests::usage::resident_kib;

use crate::{
    client::HOLDING,
    deployment::{Deployment, ECHO, Way},
};

/// KiB.
pub(crate) struct Memory {
    /// With a session and no connection.
    pub(crate) idle: Ends,
    /// What each idle connection adds.
    pub(crate) each: Ends,
}

/// One value for each end.
pub(crate) struct Ends {
    pub(crate) server: f64,
    pub(crate) agent: f64,
}

const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) fn measure(connections: u32) -> Result<Memory> {
    let deployment = Deployment::start()?;
    let idle = resident(&deployment)?;
    let to = Way::Culvert.to(ECHO);
    let mut client = deployment.client(&format!("idle {to} {connections}"))?;
    client.wait_for_line(HOLDING, PATIENCE)?;
    let loaded = resident(&deployment)?;
    let each = |loaded: f64, idle: f64| (loaded - idle) / f64::from(connections);
    Ok(Memory {
        each: Ends {
            server: each(loaded.server, idle.server),
            agent: each(loaded.agent, idle.agent),
        },
        idle,
    })
}

fn resident(deployment: &Deployment) -> Result<Ends> {
    Ok(Ends {
        server: resident_kib(&deployment.server)?,
        agent: resident_kib(&deployment.agent)?,
    })
}
